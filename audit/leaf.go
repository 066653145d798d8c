package audit

import (
	"crypto/sha256"

	"github.com/oklog/ulid/v2"
	"golang.org/x/mod/sumdb/tlog"
)

// A leaf is made of
//
//	id 16 bytes | SHA-256 of the stored event 32 bytes
//
// and not of the event itself, so that a proof can do without what nobody else
// should see: the keys that verify an account's password.

// EventSum is what a leaf holds of an event, given as its bytes in the log.
func EventSum(stored []byte) tlog.Hash { return sha256.Sum256(stored) }

// LeafHash is the hash of a leaf (RFC 6962 section 2.1).
func LeafHash(id ulid.ULID, event tlog.Hash) tlog.Hash {
	leaf := make([]byte, 0, len(id)+len(event))
	leaf = append(leaf, id[:]...)
	return tlog.RecordHash(append(leaf, event[:]...))
}
