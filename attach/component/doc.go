// Package component attaches mamlog to XMPP servers: it is the archive's side of
// the links that docs/attach-protocol.md describes.
//
// A link is a component stream (XEP-0114) that mamlog opens to a server and opens
// anew for as long as it runs. The package owns these connections, decides who may
// ask for what on them, and hands what is asked to the archive. It promises:
//
//   - Nothing but the bare domain of a host that is configured for a link can
//     append, query or delete on it, and only archives of that host.
//   - An append is answered when the archive says that it is durable, and in that
//     order; the reader does not wait for one before it reads the next.
//   - No query, and no slow reader of pages, holds up an append.
//   - What one link can use up is bounded: beyond the window it isn't read.
//   - What a client of the server puts into a message can't end the link: an append
//     whose XML is refused fails alone.
//
// All exported methods are safe for concurrent use. The package decides nothing
// about archiving, keeps nothing, and never writes the text of a stanza to the
// program's log or to a metric.
//
// # The way of a batch
//
// A stream has a reader goroutine, a writer goroutine and some workers. frames.go
// cuts the stream into stanzas, dispatch.go finds out who asks and what, batch.go
// makes sides of appends and gives them to the archive. Its goroutine comes back
// with the ids, and the answer goes into the outbox (outbox.go), where it passes
// all pages that wait. Pages are made by the workers (query.go).
package component
