// Package relational implements the state in SQL. It contains the statements of each operation; an Engine implements
// what is specific to a database. Statements are in queries/, in the SQL that the engines share; an engine can replace
// them.
//
// A single goroutine writes (writer.go). Concurrent changes share a transaction, and each caller returns when its
// change is durable.
package relational
