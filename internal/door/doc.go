// Package door is how callers come into the control plane, the same on every port and on the socket: a connection is
// taken in while there is room for it, its caller is identified once, and each call passes the same list of steps, by
// one table of methods: identify, authorize, judge, limit, bound, record.
package door
