// Package c2s is the embedded XMPP host: it lets clients of a few local domains
// log in, talk and read their archives. It is there for evaluation, for tests,
// and as the example of embedding the archive in a server; it does not federate.
//
// The package owns connections, sessions, routing between local users, their
// presence, rosters and accounts. It promises:
//
//   - A message is delivered only after the archive has recorded it, and every
//     recipient sees recorded messages in the order of the archive. Whoever
//     follows with the last stanza-id they saw misses none.
//   - What one client sends is handled in the order in which it was sent: a query
//     behind a message finds the message, and no stanza overtakes one that is
//     still being recorded.
//   - A roster change holds for every message that is ordered after its answer.
//   - A slow reader delays nobody else: its queue is bounded, and it is cut off
//     when that is full.
//   - Passwords are stored as SCRAM keys only, and are taken over an unencrypted
//     connection only on loopback, and only where that is configured.
//
// All exported methods are safe for concurrent use. The package never decides
// what is archived, never writes the text of a stanza to the program's log or to
// a metric, and never starts a goroutine for a message.
//
// # The way of a stanza
//
// A session has a reader goroutine, a writer goroutine and a worker. The reader
// stamps the sender's address, and hands messages to xep0313.Archive.Record. The
// log's goroutine comes back with the recorded message (flights.go keeps the
// order), route.go finds the resources, and the bytes are put into their queues
// (outbox.go) without blocking. Answers that read the disk or that may have to
// wait for the asker's own slow connection come from the worker.
package c2s
