// Package door admits callers to the control plane, in the same way on every port and on the Unix socket. A connection
// is accepted while there is room for it, and its caller is identified once. Each call then passes the same steps,
// driven by one table of methods: identify, authorize, judge, limit, bound the message, record.
package door
