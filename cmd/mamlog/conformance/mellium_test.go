package conformance

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/history"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"
)

// melliumPeer is a client made of mellium's own session, mux and history.
type melliumPeer struct {
	session *xmpp.Session
	served  chan error
	live    chan melliumMessage
	page    []melliumMessage // results of the query under way; see query
}

type melliumMessage struct {
	id, body string
}

// messageXML is what of a message, or of the one within a result, is looked at.
type messageXML struct {
	Body     string `xml:"body"`
	StanzaID []struct {
		By string `xml:"by,attr"`
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:sid:0 stanza-id"`
}

// melliumSession negotiates TLS, one of the mechanisms and a resource.
func melliumSession(ctx context.Context, addr, user, resource, password string, mechanisms ...sasl.Mechanism) (*xmpp.Session, error) {
	j, err := jid.New(user, Domain, resource)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	session, err := xmpp.NewClientSession(ctx, j, conn,
		xmpp.StartTLS(&tls.Config{ServerName: Domain, InsecureSkipVerify: true}), // self-signed, on loopback
		xmpp.SASL("", password, mechanisms...),
		xmpp.BindResource(),
	)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("negotiating as %s: %w", user, err)
	}
	return session, nil
}

func dialMellium(ctx context.Context, addr, user, resource string, expect int) (*melliumPeer, error) {
	session, err := melliumSession(ctx, addr, user, resource, Password, sasl.ScramSha256, sasl.ScramSha1)
	if err != nil {
		return nil, err
	}
	p := &melliumPeer{session: session, served: make(chan error, 1), live: make(chan melliumMessage, expect)}
	// Results go to the handler's inner one, in the session's own goroutine.
	// history's iterator (Handler.Fetch of mellium 0.22.0) hands a stanza's
	// reader to another goroutine while the session goes on reading the same
	// stream, so it is not used.
	results := history.NewHandler(mux.MessageHandlerFunc(p.handleResult))
	m := mux.New(stanza.NSClient,
		history.Handle(results),
		mux.MessageFunc(stanza.ChatMessage, xml.Name{Local: "body"}, p.handleLive),
	)
	go func() { p.served <- session.Serve(m) }()
	return p, session.Send(ctx, stanza.Presence{}.Wrap(nil))
}

func (p *melliumPeer) handleLive(msg stanza.Message, r xmlstream.TokenReadEncoder) error {
	var m struct {
		stanza.Message
		messageXML
	}
	if err := xml.NewTokenDecoder(r).Decode(&m); err != nil {
		return err
	}
	out := melliumMessage{body: m.Body}
	for _, s := range m.StanzaID {
		if s.By == msg.To.Bare().String() {
			out.id = s.ID
		}
	}
	p.live <- out
	return nil
}

func (p *melliumPeer) handleResult(_ stanza.Message, r xmlstream.TokenReadEncoder) error {
	var result struct {
		XMLName   xml.Name `xml:"urn:xmpp:mam:2 result"`
		ID        string   `xml:"id,attr"`
		Forwarded struct {
			Message messageXML `xml:"jabber:client message"`
		} `xml:"urn:xmpp:forward:0 forwarded"`
	}
	if err := xml.NewTokenDecoder(r).Decode(&result); err != nil {
		return err
	}
	p.page = append(p.page, melliumMessage{result.ID, result.Forwarded.Message.Body})
	return nil
}

// query fetches one page. Fetch returns when the session has handled all
// results, which is what makes reading p.page safe.
func (p *melliumPeer) query(ctx context.Context, q history.Query) ([]melliumMessage, history.Result, error) {
	p.page = nil
	res, err := history.Fetch(ctx, q, p.session.LocalAddr().Bare(), p.session)
	return p.page, res, err
}

func (p *melliumPeer) close(t *testing.T) {
	t.Helper()
	if err := p.session.Close(); err != nil {
		t.Errorf("closing the stream: %v", err)
	}
	if err := <-p.served; err != nil {
		t.Errorf("serving the session: %v", err)
	}
	_ = p.session.Conn().Close()
}

// TestMellium: login over TLS with SCRAM, a thousand messages, preferences, and
// the archive forwards and backwards with mellium's history and paging.
func TestMellium(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	addUsers(t, s, "juliet", "romeo")
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	juliet, err := dialMellium(ctx, s.Addr, "juliet", "balcony", roundtripMessages)
	if err != nil {
		t.Fatal(err)
	}
	defer juliet.close(t)
	romeo, err := dialMellium(ctx, s.Addr, "romeo", "orchard", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer romeo.close(t)
	// Her presence is known once she has an answer to what she sent after it.
	if got := melliumPrefs(ctx, t, juliet, stanza.GetIQ, ""); got != "always [] []" {
		t.Errorf("preferences at first: %s", got)
	}

	to := juliet.session.LocalAddr().Bare()
	for i := range roundtripMessages {
		err := romeo.session.Encode(ctx, struct {
			stanza.Message
			Body string `xml:"body"`
		}{stanza.Message{To: to, Type: stanza.ChatMessage}, fmt.Sprintf("message %d", i+1)})
		if err != nil {
			t.Fatal(err)
		}
	}
	var live []melliumMessage
	for len(live) < roundtripMessages {
		select {
		case m := <-juliet.live:
			if want := fmt.Sprintf("message %d", len(live)+1); m.body != want || m.id == "" {
				t.Fatalf("live: %+v, want %s with an id", m, want)
			}
			live = append(live, m)
		case <-ctx.Done():
			t.Fatalf("only %d messages arrived", len(live))
		}
	}

	t.Run("forwards", func(t *testing.T) { melliumWalk(ctx, t, juliet, live, false) })
	t.Run("backwards", func(t *testing.T) { melliumWalk(ctx, t, juliet, live, true) })
	t.Run("bounds", func(t *testing.T) {
		page, res, err := juliet.query(ctx, history.Query{AfterID: live[99].id, BeforeID: live[110].id, With: romeo.session.LocalAddr().Bare()})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(page, live[100:110]) || !res.Complete {
			t.Errorf("between the 100th and the 111th: %v, complete %v", page, res.Complete)
		}
		page, _, err = juliet.query(ctx, history.Query{IDs: []string{live[7].id, live[3].id}})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(page, []melliumMessage{live[3], live[7]}) {
			t.Errorf("by ids: %v", page)
		}
		page, _, err = juliet.query(ctx, history.Query{Limit: 3, Reverse: true})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(page, []melliumMessage{live[2], live[1], live[0]}) {
			t.Errorf("flipped: %v", page)
		}
	})
	t.Run("preferences", func(t *testing.T) {
		set := "<prefs xmlns='urn:xmpp:mam:2' default='roster'><always><jid>romeo@test.example</jid></always><never><jid>tybalt@test.example</jid></never></prefs>"
		want := "roster [romeo@test.example] [tybalt@test.example]"
		if got := melliumPrefs(ctx, t, juliet, stanza.SetIQ, set); got != want {
			t.Errorf("set answered %s, want %s", got, want)
		}
		if got := melliumPrefs(ctx, t, juliet, stanza.GetIQ, ""); got != want {
			t.Errorf("get answered %s, want %s", got, want)
		}
	})
}

// TestMechanisms: each mechanism lets in who has the password, and nobody else.
func TestMechanisms(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	addUsers(t, s, "juliet")
	for _, m := range []sasl.Mechanism{sasl.ScramSha256, sasl.ScramSha1, sasl.Plain} {
		t.Run(m.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			session, err := melliumSession(ctx, s.Addr, "juliet", "balcony", Password, m)
			if err != nil {
				t.Fatal(err)
			}
			// The resource is the server's choice: mellium takes its own address
			// from the stream header, which has the bare one, and asks for none.
			if got, want := session.LocalAddr().Bare().String(), "juliet@"+Domain; got != want {
				t.Errorf("bound %s, want a resource of %s", got, want)
			}
			_ = session.Conn().Close()
			if session, err = melliumSession(ctx, s.Addr, "juliet", "balcony", Password+"?", m); err == nil {
				_ = session.Conn().Close()
				t.Error("a wrong password was good enough")
			}
			if session, err = melliumSession(ctx, s.Addr, "nobody", "balcony", Password, m); err == nil {
				_ = session.Conn().Close()
				t.Error("a user who does not exist was let in")
			}
		})
	}
}

// melliumWalk pages through the whole archive by RSM and compares it with what
// arrived live.
func melliumWalk(ctx context.Context, t *testing.T, p *melliumPeer, live []melliumMessage, backwards bool) {
	t.Helper()
	var all []melliumMessage
	q := history.Query{Limit: 50, Last: backwards}
	for {
		page, res, err := p.query(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if res.Set.Count == nil || *res.Set.Count != uint64(len(live)) {
			t.Fatalf("after %d messages: count is %v, want %d", len(all), res.Set.Count, len(live))
		}
		if len(page) > 0 && (res.Set.First.ID != page[0].id || res.Set.Last != page[len(page)-1].id) {
			t.Fatalf("the page runs from %s to %s, RSM says %s to %s", page[0].id, page[len(page)-1].id, res.Set.First.ID, res.Set.Last)
		}
		if backwards {
			all = append(slices.Clone(page), all...)
			q.PageID = res.Set.First.ID
		} else {
			all = append(all, page...)
			q.PageID = res.Set.Last
		}
		if res.Complete {
			break
		}
		if len(page) == 0 {
			t.Fatal("an empty page that is not complete")
		}
	}
	if !slices.Equal(all, live) {
		t.Errorf("%d messages archived, %d live, or their ids, bodies or order differ", len(all), len(live))
	}
}

// melliumPrefs sends a preferences IQ and words the answer.
func melliumPrefs(ctx context.Context, t *testing.T, p *melliumPeer, typ stanza.IQType, payload string) string {
	t.Helper()
	if payload == "" {
		payload = "<prefs xmlns='urn:xmpp:mam:2'/>"
	}
	d := xml.NewDecoder(strings.NewReader(payload))
	var answer struct {
		XMLName xml.Name `xml:"urn:xmpp:mam:2 prefs"`
		Default string   `xml:"default,attr"`
		Always  []string `xml:"always>jid"`
		Never   []string `xml:"never>jid"`
	}
	if err := p.session.UnmarshalIQElement(ctx, d, stanza.IQ{Type: typ}, &answer); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %v %v", answer.Default, answer.Always, answer.Never)
}
