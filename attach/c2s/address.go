package c2s

import "mellium.im/xmpp/jid"

// maxAddresses is how many a session remembers.
const maxAddresses = 512

// address is a JID that was prepared (RFC 7622), with its parts at hand.
type address struct {
	jid            jid.JID
	text           string
	bare, resource string
	local          bool // of a host that is served here
	user           bool // has a localpart
}

// address returns what text names, nil if it isn't a JID. Preparing a JID takes
// longer than everything else that is done for a message, so a session remembers
// them. It is called by the reader only.
func (x *session) address(text string) *address {
	if a, ok := x.addresses[text]; ok {
		return a
	}
	a := x.s.parse(text)
	if len(x.addresses) >= maxAddresses {
		clear(x.addresses)
	}
	x.addresses[text] = a
	return a
}

func (s *Server) parse(text string) *address {
	j, err := jid.Parse(text)
	if err != nil {
		return nil
	}
	return &address{
		jid: j, text: j.String(), bare: j.Bare().String(), resource: j.Resourcepart(),
		local: s.hosts[j.Domainpart()], user: j.Localpart() != "",
	}
}
