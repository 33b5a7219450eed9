// Package postgres keeps the state of a mesh in a PostgreSQL database that several control planes share.
//
// A writing transaction holds a single advisory lock for the whole mesh. So writes are serialised as in a single
// process, and none fails because of a conflict with another one. Other processes are notified of writes by NOTIFY, in
// order. After a lost connection they read the changes that they missed (listen.go).
package postgres
