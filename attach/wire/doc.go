// Package wire is the connection under an XMPP stream while that is negotiated.
//
// It gives out single bytes, so an XML decoder on top of it never reads ahead:
// when the negotiation ends, whoever takes over goes on at the very next byte.
// It bounds what the other side may send until then, and remembers the stream
// header, whose namespaces hold for everything after it.
//
// A Conn belongs to one goroutine. The package knows neither which side it is
// on nor what is negotiated.
package wire
