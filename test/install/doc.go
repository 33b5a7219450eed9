// Package install tests the Debian packages, the systemd units and the pages for operators as these are: on hosts that
// boot a systemd of their own in namespaces, out of this machine's files.
package install
