// Package state keeps what a control plane knows that is not configuration: CA material, join tokens, nodes and their
// workloads, virtual addresses, peers, invitations and issued certificates, in one SQLite file.
//
// The file is durable (what a method acknowledged survives a power cut) and checked: a damaged one is named when it is
// opened and never begun anew. Time is an argument everywhere. Consumers declare the few methods they need;
// package statetest holds the contract that another database must keep.
package state
