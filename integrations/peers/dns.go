package peers

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// nameserver tells ejabberd, which can't be told otherwise, where other servers
// are: it answers for their SRV records and knows nothing else.
type nameserver struct{ conn net.PacketConn }

func startNameserver(remote map[string]string) (*nameserver, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	records := make(map[string]dnsmessage.SRVResource)
	for domain, addr := range remote {
		host, p, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		number, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		// An address in the place of a name needs no further look-up.
		target, err := dnsmessage.NewName(host + ".")
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		records["_xmpp-server._tcp."+domain+"."] = dnsmessage.SRVResource{Port: uint16(number), Target: target}
	}
	n := &nameserver{conn}
	go n.serve(records)
	return n, nil
}

func (n *nameserver) serve(records map[string]dnsmessage.SRVResource) {
	b := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(b)
		if err != nil {
			return // closed
		}
		var m dnsmessage.Message
		if err := m.Unpack(b[:size]); err != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		answer := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: m.ID, OpCode: m.OpCode, RecursionDesired: m.RecursionDesired, Response: true, Authoritative: true, RCode: dnsmessage.RCodeNameError},
			Questions: m.Questions,
		}
		if r, ok := records[strings.ToLower(q.Name.String())]; ok && q.Type == dnsmessage.TypeSRV {
			answer.RCode = dnsmessage.RCodeSuccess
			answer.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: &r}}
		}
		if packed, err := answer.Pack(); err == nil {
			_, _ = n.conn.WriteTo(packed, from)
		}
	}
}

func (n *nameserver) port() int { return n.conn.LocalAddr().(*net.UDPAddr).Port }
