// Package stanza reads and writes XMPP stanzas as small trees.
//
// A stanza is parsed once, when it arrives, with its namespaces resolved and
// everything refused that RFC 6120 section 11 forbids; it is written back with
// every namespace declared where it is used, and every character escaped that
// could end an element. Such bytes mean the same wherever they are spliced in:
// on a stream, in a WebSocket frame, in a forwarded element, in a store.
//
// Elements are not safe for concurrent changes. The package does no input or
// output of its own and knows nothing of archives.
package stanza
