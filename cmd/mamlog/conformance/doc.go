// Package conformance tests the finished mamlog binary from outside: it is
// built, started on a loopback port with a data directory of its own, and
// spoken to over its socket only.
//
// Three kinds of peer are used. Clients that nobody here wrote (slixmpp,
// nbxmpp, mellium) show that ordinary software works with it, with their own
// XEP-0313 code. Transcripts (testdata/transcripts, described in the README
// there) pin down what is said on the wire, one file for a case of the
// checklist. Bare sockets are used where only speed or violence matters: the
// kill -9 rounds.
//
// The package imports nothing of mamlog. MAMLOG_BIN names a binary to test
// instead of one built from this tree.
package conformance
