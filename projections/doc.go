// Package projections folds the log into rows that answer queries by ordered
// range scans: archives, conversations, preferences, policies, accounts and
// rosters.
//
// The rows follow from the log alone. Deleting them and folding the log again
// gives the same rows, byte for byte; that is why they need no write-ahead log:
// the position up to which they were folded is written in the same batch as the
// rows, and after a crash folding goes on from there. A row is visible when the
// append of its event is acknowledged, and not before the event is durable.
//
// A Store is safe for concurrent use. It never decides what is archived and
// never writes to the log.
package projections
