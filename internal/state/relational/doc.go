// Package relational keeps the state in any SQL database: it knows which statements a change takes, and an Engine knows
// its database. Statements stand in queries/, in the SQL that the engines share; an engine brings those of its own.
//
// One goroutine writes (writer.go): changes that wait share a transaction, and whoever asked for one is answered when
// it is durable.
package relational
