// Package state defines what a control plane stores that is not configuration: CA material, join tokens, nodes and
// their workloads, virtual addresses, peers, invitations and issued certificates. It contains the types, the sentinel
// errors, and Store, the contract of every database.
//
// Two databases implement it: package sqlite, a file for a single control plane, and package postgres, a database that
// several control planes share. Package relational contains their common part. Package statetest tests the contract.
package state
