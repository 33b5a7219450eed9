// Package postgres keeps the state of a mesh in a PostgreSQL database that several control planes share.
//
// A transaction that writes holds one lock of the whole mesh, so changes follow one another as they do in one process,
// and none is ever refused because another was under way. What one process wrote, the others are told by NOTIFY, in the
// order in which it was written; what was written while the connection was away is read afterwards (listen.go).
package postgres
