// Package state says what a control plane remembers that is not configuration: CA material, join tokens, nodes and
// their workloads, virtual addresses, peers, invitations and issued certificates. It has the types, the errors on which
// callers branch, and Store, the contract of whatever keeps them.
//
// Two databases keep it: package sqlite one file for one control plane, package postgres a database that several share.
// Package relational has what both do alike, and package statetest holds both to the contract.
package state
