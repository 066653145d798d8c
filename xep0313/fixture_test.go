package xep0313

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// fixture is an archive for test.example and other.example on stores in memory.
type fixture struct {
	*Archive
	t    testing.TB
	main *projections.Store
}

func newFixture(t testing.TB, o Options, now func() time.Time) *fixture {
	t.Helper()
	clock := log.NewClock(now)
	cache := pebble.NewCache(64 << 20) // a server's, so that benchmarks don't read the same blocks again and again
	t.Cleanup(cache.Unref)
	open := func(retention time.Duration) (*log.Log, *projections.Store) {
		fs := vfs.NewMem()
		l, err := log.Open("log", log.Options{FS: fs, Clock: clock, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		p, err := projections.Open("rows", l, projections.Options{FS: fs, Cache: cache, Retention: func(log.Class) time.Duration { return retention }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(l.Close(), p.Close()); err != nil {
				t.Error(err)
			}
		})
		return l, p
	}
	mainLog, main := open(0)
	l, p := open(o.ExpiresAfter)
	l2, p2 := open(o.ExpiresAfter)
	a, err := New(context.Background(), Config{
		Log: mainLog, Projections: main, Contacts: main,
		Hosts: []Host{
			{Name: "test.example", Options: o, Log: l, Archives: p},
			{Name: "other.example", Options: o, Log: l2, Archives: p2},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{a, t, main}
}

// send records a message between local users and returns its delivery.
func (f *fixture) send(from, to, xml string) Delivery {
	f.t.Helper()
	c := make(chan Delivery, 1)
	st, err := stanza.Parse([]byte(xml))
	if err != nil {
		f.t.Fatal(err)
	}
	st.SetAttr("from", from)
	st.SetAttr("to", to)
	m := Message{Stanza: st, From: jid.MustParse(from), To: jid.MustParse(to)}
	m.FromLocal, m.ToLocal = strings.HasSuffix(m.From.Domainpart(), ".example"), strings.HasSuffix(m.To.Domainpart(), ".example")
	if err := f.Record(m, func(d Delivery) { c <- d }); err != nil {
		f.t.Fatal(err)
	}
	d := <-c
	if d.Err != nil {
		f.t.Fatal(d.Err)
	}
	return d
}

// chat sends a chat message with a body.
func (f *fixture) chat(from, to, body string) Delivery {
	f.t.Helper()
	return f.send(from, to, "<message type='chat'><body>"+body+"</body></message>")
}

// ask sends an iq from asker and returns all stanzas of the answer.
func (f *fixture) ask(asker, typ, to, payload string) []*stanza.Element {
	f.t.Helper()
	iq, err := stanza.Parse([]byte(fmt.Sprintf("<iq id='q1' type='%s' from='%s'>%s</iq>", typ, asker, payload)))
	if err != nil {
		f.t.Fatal(err)
	}
	iq.SetAttr("to", to)
	var out []*stanza.Element
	if !f.HandleIQ(context.Background(), iq, jid.MustParse(asker), func(b []byte) {
		e, err := stanza.Parse(b)
		if err != nil {
			f.t.Fatalf("%v in %s", err, b)
		}
		out = append(out, e)
	}) {
		f.t.Fatalf("not handled: %s", payload)
	}
	return out
}

// field is a form field with values.
func field(name string, values ...string) string {
	s := "<field var='" + name + "'>"
	for _, v := range values {
		s += "<value>" + string(stanza.AppendEscaped(nil, v)) + "</value>"
	}
	return s + "</field>"
}

// queryXML is a query with form fields and the children of an RSM set.
func queryXML(fields []string, set string) string {
	s := "<query xmlns='" + NS + "' queryid='f&amp;27'>"
	if fields != nil {
		s += "<x xmlns='jabber:x:data' type='submit'>" + field("FORM_TYPE", NS) + strings.Join(fields, "") + "</x>"
	}
	if set != "" {
		s += "<set xmlns='" + NSRSM + "'>" + set + "</set>"
	}
	return s + "</query>"
}

// answer is what a query came to, in short.
type answer struct {
	bodies             []string
	ids                []string
	first, last, index string
	count              string
	complete           bool
	err                string // type/condition
}

func (f *fixture) query(asker string, fields []string, set string) answer {
	f.t.Helper()
	return f.read(f.ask(asker, "set", "", queryXML(fields, set)))
}

func (f *fixture) read(stanzas []*stanza.Element) (a answer) {
	f.t.Helper()
	for _, s := range stanzas[:len(stanzas)-1] {
		r := s.Child(NS, "result")
		if r == nil || r.Attr("queryid") != "f&27" {
			f.t.Fatalf("not a result of the query: %s", s.Bytes())
		}
		fw := r.Child(NSForward, "forwarded")
		a.bodies = append(a.bodies, fw.Child(stanza.NSClient, "message").ChildText(stanza.NSClient, "body"))
		a.ids = append(a.ids, r.Attr("id"))
	}
	iq := stanzas[len(stanzas)-1]
	if e := iq.Child(stanza.NSClient, "error"); e != nil {
		a.err = e.Attr("type") + "/" + e.First().Local
		return a
	}
	fin := iq.Child(NS, "fin")
	set := fin.Child(NSRSM, "set")
	a.complete = fin.Attr("complete") == "true"
	a.first, a.last, a.count = set.ChildText(NSRSM, "first"), set.ChildText(NSRSM, "last"), set.ChildText(NSRSM, "count")
	if first := set.Child(NSRSM, "first"); first != nil {
		a.index = first.Attr("index")
	}
	return a
}

// archived is how many messages owner's archive has.
func (f *fixture) archived(owner string) int {
	f.t.Helper()
	s, q, err := f.Archive.Archive(jid.MustParse(owner))
	if err != nil {
		f.t.Fatal(err)
	}
	p, err := s.Query(q)
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Count
}

var zeroID ulid.ULID

func jidOf(s string) jid.JID { return jid.MustParse(s) }
