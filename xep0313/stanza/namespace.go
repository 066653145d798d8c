package stanza

import "fmt"

// binding is a namespace prefix in scope; the prefix "" is the default.
type binding struct{ prefix, space string }

// check refuses the declarations that Namespaces in XML 1.0 section 3 forbids.
func (b binding) check() error {
	switch {
	case b.prefix != "" && b.space == "":
		return notWellFormed("the prefix %q is declared as no namespace", short(b.prefix))
	case b.prefix == "xmlns", (b.prefix == "xml") != (b.space == nsXML), b.space == nsXMLNS:
		return notWellFormed("the prefix %q can't be declared as %q", short(b.prefix), short(b.space))
	}
	return nil
}

// resolve returns the namespace of a prefix; the innermost binding counts, and is
// the last.
func resolve(scope []binding, prefix []byte) (string, error) {
	for i := len(scope) - 1; i >= 0; i-- {
		if scope[i].prefix == string(prefix) {
			return scope[i].space, nil
		}
	}
	switch string(prefix) {
	case "":
		return "", nil
	case "xml":
		return nsXML, nil
	}
	return "", &StreamError{"bad-namespace-prefix", fmt.Sprintf("the prefix %q is not declared", short(string(prefix)))}
}

// known are the namespaces that most stanzas are made of, by their lengths. They
// are not copied each time.
var known = func() (byLength [64][]string) {
	for _, s := range []string{
		NSClient, NSErrors,
		"eu.siacs.conversations.axolotl",
		"http://etherx.jabber.org/streams",
		"http://jabber.org/protocol/caps",
		"http://jabber.org/protocol/chatstates",
		"http://jabber.org/protocol/disco#info",
		"http://jabber.org/protocol/disco#items",
		"http://jabber.org/protocol/muc",
		"http://jabber.org/protocol/muc#user",
		"http://jabber.org/protocol/pubsub",
		"http://jabber.org/protocol/pubsub#event",
		"http://jabber.org/protocol/rsm",
		"jabber:component:accept",
		"jabber:iq:roster",
		"jabber:server",
		"jabber:x:data",
		"jabber:x:oob",
		"urn:mamlog:attach:1",
		"urn:xmpp:carbons:2",
		"urn:xmpp:chat-markers:0",
		"urn:xmpp:delay",
		"urn:xmpp:eme:0",
		"urn:xmpp:forward:0",
		"urn:xmpp:hints",
		"urn:xmpp:mam:2",
		"urn:xmpp:message-correct:0",
		"urn:xmpp:omemo:2",
		"urn:xmpp:ping",
		"urn:xmpp:reactions:0",
		"urn:xmpp:receipts",
		"urn:xmpp:reply:0",
		"urn:xmpp:sid:0",
		"urn:xmpp:sm:3",
		"vcard-temp:x:update",
	} {
		byLength[len(s)] = append(byLength[len(s)], s)
	}
	return byLength
}()

func namespace(b []byte) string {
	if len(b) < len(known) {
		for _, s := range known[len(b)] {
			if s == string(b) {
				return s
			}
		}
	}
	return string(b)
}
