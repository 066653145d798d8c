// Package log is the append-only log of events: the only truth that mamlog
// keeps. Everything else is a fold of it.
//
// The log owns the order of all events of one store, their ids and their
// durability. It promises:
//
//   - The order of ids is the order of commits, and the order in which readers
//     and followers see the records.
//   - An append whose callback reports success is on disk (fsync), and every
//     follower has applied it.
//   - Ids grow, across restarts and clock steps too, can't be guessed, and are
//     never used twice.
//   - An append that repeats the idempotency key of an earlier one yields the
//     earlier id and writes nothing.
//
// All methods are safe for concurrent use. The log never looks into a stanza,
// and nothing outside of this package knows how its records are keyed.
package log
