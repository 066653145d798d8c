package conformance

const (
	nsClient    = "jabber:client"
	nsXML       = "http://www.w3.org/XML/1998/namespace"
	nsStream    = "http://etherx.jabber.org/streams"
	nsTLS       = "urn:ietf:params:xml:ns:xmpp-tls"
	nsSASL      = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsBind      = "urn:ietf:params:xml:ns:xmpp-bind"
	nsStanzas   = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsMAM       = "urn:xmpp:mam:2"
	nsRSM       = "http://jabber.org/protocol/rsm"
	nsSID       = "urn:xmpp:sid:0"
	nsMUC       = "http://jabber.org/protocol/muc"
	nsForm      = "jabber:x:data"
	nsSM        = "urn:xmpp:sm:3"
	nsPing      = "urn:xmpp:ping"
	nsComponent = "jabber:component:accept"
	nsBarrier   = "urn:mamlog:test:barrier"
)
