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
// durable and can be queried, and that nobody but the owner of an account's
// archive is answered. Who may read a room's is for the caller to find out.
//
// A server that is its own host calls Record, which decides on both sides of a
// message; one that attaches another server calls Append, with a Side for each
// archive, and HandleRoomIQ where that server has rooms.
package xep0313
