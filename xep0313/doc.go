// Package xep0313 is the archive as XEP-0313 (Message Archive Management)
// defines it: it decides which message goes into which archive and why, records
// it, and answers queries, preferences (XEP-0441) and metadata.
//
// A stanza's way leads from attach through this package into the log; a query's
// way from attach through this package to the projections. The package knows
// nothing of sockets, sessions or rosters' protocols.
//
// It promises that a preference change governs every message recorded after it
// and none before, that a delivery is handed back only when what it names is
// durable and can be queried, and that nobody but the owner is answered.
package xep0313
