// Package audit makes the log's audit records provable to somebody who trusts
// neither the machine nor whoever runs it.
//
// The records of the class log.Audit of one store are the leaves of a Merkle tree
// (RFC 6962 section 2.1), in the order of the log; the projections keep its
// hashes. A checkpoint names the size and the root of every store's tree at a
// moment and is signed with Ed25519. Whoever has kept a checkpoint can tell from
// the next one, and a proof that fits on a page, that nothing before it was
// changed, removed or put in between; and of a single event that it is there.
//
// The package hashes, signs, proves and verifies. It opens no store; the key and
// the checkpoints lie in a directory of their own (Book).
package audit
