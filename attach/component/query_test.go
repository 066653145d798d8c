package component

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// TestQueryOfAccount: what a client sees is complete, whatever it wrote as to.
func TestQueryOfAccount(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const alice = "alice@example.org"
	p.archived(testHost, appendOf("out", alice, "bob@example.org", "k1", "a &amp; ]]&gt; b"), appendOf("in", alice, "bob@example.org/x", "k2", "two"))
	for _, to := range []string{"", "to='alice@example.org'", "to='mallory@example.org'", "from='mallory@example.org'"} {
		page := p.page(testHost, alice, alice+"/phone", `<iq xmlns='jabber:client' type='set' id='c&apos;7' `+to+`><query xmlns='urn:xmpp:mam:2' queryid='q'/></iq>`)
		if got := bodies(page); fmt.Sprint(got) != "[a & ]]> b two]" {
			t.Errorf("%s: %q", to, got)
		}
		for _, e := range page {
			if e.Attr("from") != alice || e.Attr("to") != alice+"/phone" {
				t.Errorf("%s: from and to of %s", to, e.Bytes())
			}
		}
		if last := page[len(page)-1]; last.Attr("id") != "c'7" || last.Attr("type") != "result" {
			t.Errorf("%s: %s", to, last.Bytes())
		}
	}
	for name, iq := range map[string]string{
		"form":     `<iq xmlns='jabber:client' type='get' id='c'><query xmlns='urn:xmpp:mam:2'/></iq>`,
		"metadata": `<iq xmlns='jabber:client' type='get' id='c'><metadata xmlns='urn:xmpp:mam:2'/></iq>`,
		"prefs":    `<iq xmlns='jabber:client' type='get' id='c'><prefs xmlns='urn:xmpp:mam:2'/></iq>`,
		"set":      `<iq xmlns='jabber:client' type='set' id='c'><prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs></iq>`,
	} {
		if page := p.page(testHost, alice, alice+"/phone", iq); len(page) != 1 || page[0].Attr("type") != "result" {
			t.Errorf("%s: %s", name, page[0].Bytes())
		}
	}
	// The preferences hold for what comes after the answer.
	if w := p.archived(testHost, appendOf("out", alice, "bob@example.org", "k3", "x")); w[0] != "-" {
		t.Errorf("got %q", w)
	}
}

// TestOnlyTheOwnerAsks: for accounts, the asker is checked here too.
func TestOnlyTheOwnerAsks(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k1", "secret"))
	for _, asker := range []string{"bob@example.org/x", "alice@remote.example/x", "example.org/x"} {
		for _, iq := range []string{
			everything, `<iq xmlns='jabber:client' type='set' id='c1' to='` + asker + `'><query xmlns='urn:xmpp:mam:2'/></iq>`,
			`<iq xmlns='jabber:client' type='get' id='c1'><prefs xmlns='urn:xmpp:mam:2'/></iq>`,
			`<iq xmlns='jabber:client' type='set' id='c1'><prefs xmlns='urn:xmpp:mam:2' default='never'/></iq>`,
		} {
			page := p.page(testHost, "alice@example.org", asker, iq)
			if len(page) != 1 || condition(page[0]) != "auth/forbidden" || page[0].Attr("to") != asker || page[0].Attr("id") != "c1" {
				t.Errorf("%s gets %s", asker, page[0].Bytes())
			}
		}
	}
}

func TestQueryOfRoom(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const den = "den@rooms.example.org"
	p.archived(testRooms, appendOf("room", den, den+"/Al", "k1", "hi", "sender='alice@example.org/x'"))
	for _, real := range []string{"all", "own", ""} {
		page := p.page(testRooms, den, "bob@remote.example/x", everything, "real-jids='"+real+"'")
		if got := bodies(page); fmt.Sprint(got) != "[hi]" {
			t.Fatalf("got %q", got)
		}
		if shown := strings.Contains(string(page[0].Bytes()), "alice@example.org"); shown != (real == "all") {
			t.Errorf("real-jids=%q: %s", real, page[0].Bytes())
		}
	}
	page := p.page(testRooms, den, "alice@example.org/y", everything)
	if !strings.Contains(string(page[0].Bytes()), "alice@example.org/x") {
		t.Errorf("the sender does not see their own: %s", page[0].Bytes())
	}
}

func TestBadQueries(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const alice = "alice@example.org"
	for name, c := range map[string][2]string{
		"no owner":         {query("", alice+"/x", everything), "modify/jid-malformed"},
		"full owner":       {query(alice+"/x", alice+"/x", everything), "modify/jid-malformed"},
		"the host":         {query("example.org", alice+"/x", everything), "modify/jid-malformed"},
		"owner elsewhere":  {query("alice@other.example", "alice@other.example/x", everything), "auth/forbidden"},
		"no asker":         {query(alice, "", everything), "modify/jid-malformed"},
		"no iq":            {query(alice, alice+"/x", ""), "modify/bad-request"},
		"another iq":       {query(alice, alice+"/x", `<iq type='get'/>`), "modify/bad-request"},
		"an empty iq":      {query(alice, alice+"/x", `<iq xmlns='jabber:client' type='get' id='1'/>`), "modify/bad-request"},
		"another protocol": {query(alice, alice+"/x", `<iq xmlns='jabber:client' type='get' id='1'><query xmlns='urn:xmpp:mam:1'/></iq>`), "modify/bad-request"},
		"a result":         {query(alice, alice+"/x", `<iq xmlns='jabber:client' type='result' id='1'><query xmlns='urn:xmpp:mam:2'/></iq>`), "modify/bad-request"},
		"not XML":          {query(alice, alice+"/x", `<p:iq/>`), "modify/bad-request"},
	} {
		if got := condition(p.ask("get", testHost, testDomain, c[0])); got != c[1] {
			t.Errorf("%s: got %q, want %q", name, got, c[1])
		}
	}
}

func TestDelete(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const alice = "alice@example.org"
	p.archived(testHost, appendOf("out", alice, "bob@example.org", "k1", "old"))
	if e := p.ask("set", testHost, testDomain, `<delete xmlns='`+NS+`' owner='`+alice+`'/>`); e.Attr("type") != "result" {
		t.Errorf("got %s", e.Bytes())
	}
	if got := bodies(p.page(testHost, alice, alice+"/x", everything)); len(got) != 0 {
		t.Errorf("there is still %q", got)
	}
	for owner, want := range map[string]string{"": "modify/jid-malformed", "example.org": "modify/jid-malformed", "alice@other.example": "auth/forbidden"} {
		if got := condition(p.ask("set", testHost, testDomain, `<delete xmlns='`+NS+`' owner='`+owner+`'/>`)); got != want {
			t.Errorf("%q: %q", owner, got)
		}
	}
}

// slow is an archive whose queries wait until they are let go.
type slow struct {
	Archive
	started chan struct{}
	pass    chan struct{}
	page    []byte
}

func (s *slow) HandleIQ(_ context.Context, _ *stanza.Element, _ jid.JID, emit func([]byte)) bool {
	s.started <- struct{}{}
	<-s.pass
	emit(s.page)
	return true
}

func (f *fixture) slow() *slow {
	s := &slow{Archive: f.archive.Archive, started: make(chan struct{}, 1000), pass: make(chan struct{}), page: []byte(`<iq xmlns='jabber:client'/>`)}
	f.archive.Archive = s
	return s
}

// TestQueriesDoNotHoldUpAppends: with as many slow queries as there can be, and
// more waiting, appends are answered; what is too much is refused.
func TestQueriesDoNotHoldUpAppends(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Queries, c.Limits.Waiting = 3, 5 })
	slow := f.slow()
	p := f.up()
	q := query("alice@example.org", "alice@example.org/x", everything)
	for _, owner := range []string{"alice@example.org", "bob@example.org", "carol@example.org"} {
		p.request("get", testHost, testDomain, query(owner, owner+"/x", everything))
		<-slow.started
	}
	for range 5 {
		p.request("get", testHost, testDomain, q)
	}
	if got := condition(p.ask("get", testHost, testDomain, q)); got != "wait/resource-constraint" {
		t.Errorf("one more: %q", got)
	}
	p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k", "quick"))
	if st := f.status(); st.Waiting != 8 {
		t.Errorf("%d are waiting", st.Waiting)
	}
	close(slow.pass)
	for range 8 {
		if e := p.next(); e.Child(NS, "page") == nil {
			t.Errorf("got %s", e.Bytes())
		}
	}
	f.eventually("the queries are not counted", func() bool { st := f.status(); return st.Waiting == 0 && st.Queries == 8 })
}

// TestQueriesOfADeadStream end with it.
func TestQueriesOfADeadStream(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Queries = 1 })
	slow := f.slow()
	p := f.up()
	for range 4 {
		p.request("get", testHost, testDomain, query("alice@example.org", "alice@example.org/x", everything))
	}
	<-slow.started
	p.Close()
	close(slow.pass)
	f.up()
	if n := f.status().Waiting; n != 0 {
		t.Errorf("%d are waiting", n)
	}
}

// TestAnswersPassPages: an answer is written before all pages that wait.
func TestAnswersPassPages(t *testing.T) {
	o := newOutbox()
	o.page([]byte("page1"))
	o.page([]byte("page2"))
	o.answer([]byte("a"))
	o.answer([]byte("b"))
	want := [][2]string{{"ab", "page1"}, {"c", "page2"}, {"end", ""}}
	for i, w := range want {
		answers, page, last := o.take(nil)
		if string(answers) != w[0] || string(page) != w[1] || last != (i == 2) {
			t.Errorf("%d: got %q, %q, %v", i, answers, page, last)
		}
		switch i {
		case 0:
			o.answer([]byte("c"))
		case 1:
			o.close("end")
		}
	}
	o.answer([]byte("late"))
	o.page([]byte("late"))
	o.close("twice")
	if answers, page, last := o.take(nil); len(answers)+len(page) != 0 || !last {
		t.Errorf("after the end: %q, %q", answers, page)
	}
	if o.roomForAnswers() || o.roomForPages() {
		t.Error("there is room in a closed outbox")
	}
}

// TestReaderOfPagesIsSlow: while a server reads no pages, none are made, and
// appends are under way all the same.
func TestReaderOfPagesIsSlow(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Queries = 2 })
	slow := f.slow()
	slow.page = append(append([]byte(`<iq xmlns='jabber:client'>`), bytes.Repeat([]byte("x"), 400<<10)...), `</iq>`...)
	close(slow.pass)
	p := f.up()
	const queries = 200
	for range queries {
		p.request("get", testHost, testDomain, query("alice@example.org", "alice@example.org/x", everything))
	}
	p.request("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "x")))
	f.eventually("the append waits for pages", func() bool { return f.status().Appends == 1 })
	before := queries
	for range queries + 1 {
		e := p.next()
		if e.Child(NS, "archived") != nil {
			break
		}
		before--
	}
	if before == 0 {
		t.Error("the answer to the append comes behind all pages")
	}
	if n := len(slow.started); n == queries {
		t.Error("all pages were made though nobody had read them")
	}
}

func TestPageTooLarge(t *testing.T) {
	f := start(t, nil)
	slow := f.slow()
	slow.page = bytes.Repeat([]byte("x"), maxPage+1)
	close(slow.pass)
	p := f.up()
	page := p.page(testHost, "alice@example.org", "alice@example.org/x", everything)
	if len(page) != 1 || condition(page[0]) != "modify/policy-violation" || page[0].Attr("id") != "c1" {
		t.Errorf("got %s", page[0].Bytes())
	}
}

// TestCDATA: a page may hold what ends a CDATA section.
func TestCDATA(t *testing.T) {
	c := &call{iq: stanza.New(nsAccept, "iq", "id", "1")}
	for _, text := range []string{"", "x", "]]>", "a]]>b", "]]]]>>", "]]>]]>", "]]", "<![CDATA[x]]>"} {
		e, err := stanza.Parse(c.page(1, []byte(text)))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := e.First().Text(); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

var _ Archive = (*xep0313.Archive)(nil)

// TestOrderOfOneOwner: what is asked of one archive is answered in that order,
// however many workers there are, and nothing is read that was deleted before.
func TestOrderOfOneOwner(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	owners := []string{"alice@example.org", "bob@example.org", "carol@example.org"}
	for _, o := range owners {
		p.archived(testHost, appendOf("out", o, "dave@example.org", "k1", "one"))
	}
	const rounds = 100
	sent := make(map[string][]string)
	for i := range rounds {
		for _, o := range owners {
			sent[o] = append(sent[o], p.request("get", testHost, testDomain, query(o, o+"/x", everything)))
			if i == rounds/2 {
				sent[o] = append(sent[o], p.request("set", testHost, testDomain, `<delete xmlns='`+NS+`' owner='`+o+`'/>`))
			}
		}
	}
	owner := make(map[string]string)
	for o, ids := range sent {
		for _, id := range ids {
			owner[id] = o
		}
	}
	pages := make(map[string][]string) // the answer to a deletion passes them
	for range len(owner) {
		e := p.next()
		id := e.Attr("id")
		o := owner[id]
		if e.First() == nil {
			continue // the deletion
		}
		want := "[one]"
		if len(pages[o]) > rounds/2 {
			want = "[]"
		}
		pages[o] = append(pages[o], id)
		if b := fmt.Sprint(bodies(unpack(t, e))); b != want {
			t.Fatalf("%s: page %d has %s", o, len(pages[o]), b)
		}
	}
	for _, o := range owners {
		if want := slices.Delete(sent[o], rounds/2+1, rounds/2+2); !slices.Equal(pages[o], want) {
			t.Errorf("%s: answered in the order %v", o, pages[o])
		}
	}
}

// TestQueriesOfOneUserOnALink: who asks too much at once is refused, whichever
// archive they ask, and takes nobody else's place.
func TestQueriesOfOneUserOnALink(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Queries, c.Limits.PerUser = 1, 2 })
	slow := f.slow()
	p := f.up()
	p.request("get", testHost, testDomain, query("alice@example.org", "alice@example.org/x", everything))
	<-slow.started
	p.request("get", testHost, testDomain, query("bob@example.org", "alice@example.org/y", everything))
	if got := condition(p.ask("get", testHost, testDomain, query("alice@example.org", "alice@example.org/z", everything))); got != "wait/resource-constraint" {
		t.Errorf("a third one: %q", got)
	}
	p.request("get", testHost, testDomain, query("bob@example.org", "bob@example.org/x", everything))
	close(slow.pass)
	for range 3 {
		if e := p.next(); e.Child(NS, "page") == nil {
			t.Errorf("got %s", e.Bytes())
		}
	}
	if e := p.ask("get", testHost, testDomain, query("alice@example.org", "alice@example.org/x", everything)); e.Child(NS, "page") == nil {
		t.Errorf("when they are answered: %s", e.Bytes())
	}
}
