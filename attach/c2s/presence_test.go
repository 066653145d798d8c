package c2s

import (
	"context"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"

	"mamlog/xep0313/stanza"
)

func TestRoster(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	a, b, c := f.online("juliet", "a"), f.online("juliet", "b"), f.online("juliet", "c")
	query := func(items string) string { return "<query xmlns='jabber:iq:roster'>" + items + "</query>" }
	for _, x := range []*client{a, b} {
		if q := x.iq("get", "", query("")).Child(nsRoster, "query"); q == nil || len(q.Elements()) != 0 {
			t.Fatalf("roster %s", q.Bytes())
		}
	}
	for _, x := range []*client{a, b, c} {
		x.settled()
	}
	for _, tt := range []struct{ items, want string }{
		{"", "modify/bad-request"},
		{"<item jid='romeo@test.example'/><item jid='nurse@test.example'/>", "modify/bad-request"},
		{"<item jid='@'/>", "modify/jid-malformed"},
		{"<item jid='romeo@test.example/garden'/>", "modify/bad-request"},
		{"<item jid='juliet@test.example'/>", "cancel/not-allowed"},
		{"<item jid='romeo@test.example'><group>x</group><group>x</group></item>", "modify/bad-request"},
		{"<item jid='romeo@test.example'><group/></item>", "modify/not-acceptable"},
		{"<item jid='romeo@test.example' name='" + strings.Repeat("x", 1024) + "'/>", "modify/not-acceptable"},
		{"<item jid='romeo@test.example' subscription='remove'/>", "cancel/item-not-found"},
	} {
		wantCondition(t, a.iq("set", "", query(tt.items)), tt.want)
	}
	b.nothing("no push for what was refused")

	set := query("<item jid='Romeo@test.example' name='Ro&apos;meo' subscription='both' ask='subscribe'><group>Friends</group><group>Montague</group></item>")
	wantCondition(t, a.iq("set", "juliet@test.example", set), "result")
	item := func(x *client) *stanza.Element {
		t.Helper()
		e := x.until("a push", func(e *stanza.Element) bool { return e.Local == "iq" && e.Child(nsRoster, "query") != nil })
		if e.Attr("type") != "set" || e.Attr("to") != x.full {
			t.Errorf("push: %s", e.Bytes())
		}
		return e.Child(nsRoster, "query").First()
	}
	const want = "<item xmlns='jabber:iq:roster' jid='romeo@test.example' subscription='none' name='Ro&#39;meo'><group>Friends</group><group>Montague</group></item>"
	for _, x := range []*client{a, b} {
		if got := string(item(x).Bytes()); got != want {
			t.Errorf("push %s, want %s", got, want)
		}
	}
	c.nothing("no push for a resource that didn't ask for the roster")
	if got := string(c.iq("get", "", query("")).Child(nsRoster, "query").First().Bytes()); got != want {
		t.Errorf("roster %s, want %s", got, want)
	}
	wantCondition(t, a.iq("set", "", query("<item jid='romeo@test.example' subscription='remove'/>")), "result")
	if got := item(b).Attr("subscription"); got != "remove" {
		t.Errorf("push of a removal: %s", got)
	}
	if items := c.iq("get", "", query("")).Child(nsRoster, "query").Elements(); len(items) != 0 {
		t.Errorf("roster after removal has %d items", len(items))
	}
}

// summary tells what arrived, in short, roster pushes and presence alike.
func summary(es []*stanza.Element) string {
	var s []string
	for _, e := range es {
		switch {
		case e.Local == "presence":
			typ := e.Attr("type")
			if typ == "" {
				typ = "available"
			}
			s = append(s, typ+" from "+strings.ReplaceAll(e.Attr("from"), "@test.example", ""))
		case e.Child(nsRoster, "query") != nil:
			i := e.Child(nsRoster, "query").First()
			p := "push " + strings.TrimSuffix(i.Attr("jid"), "@test.example") + " " + i.Attr("subscription")
			if i.Attr("ask") != "" {
				p += " ask"
			}
			s = append(s, p)
		default:
			s = append(s, string(e.Bytes()))
		}
	}
	return strings.Join(s, "; ")
}

func (c *client) expect(what, want string) {
	c.t.Helper()
	if got := summary(c.settled()); got != want {
		c.t.Errorf("%s: %s got\n  %s\nwant\n  %s", what, c.full, got, want)
	}
}

func TestSubscriptions(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	romeo := f.dial().login("romeo", "garden")
	romeo.iq("get", "", "<query xmlns='jabber:iq:roster'/>")
	romeo.send("<presence/>")
	romeo.expect("initial presence", "available from romeo/garden")

	// A request waits until there is somebody to answer it.
	romeo.send("<presence type='subscribe' to='juliet@test.example'/>")
	romeo.expect("request", "push juliet none ask")
	juliet := f.dial().login("juliet", "balcony")
	roster := juliet.iq("get", "", "<query xmlns='jabber:iq:roster'/>")
	if n := len(roster.Child(nsRoster, "query").Elements()); n != 0 {
		t.Errorf("a request that waits is shown in the roster")
	}
	juliet.send("<presence/>")
	juliet.expect("initial presence", "available from juliet/balcony; subscribe from romeo")
	romeo.expect("nobody may see juliet yet", "")

	juliet.send("<presence type='subscribed' to='romeo@test.example'/>")
	juliet.expect("approval", "push romeo from")
	romeo.expect("approval", "subscribed from juliet; push juliet to; available from juliet/balcony")
	juliet.send("<presence type='subscribed' to='romeo@test.example'/>")
	juliet.expect("approval again", "")
	romeo.expect("approval again", "")

	juliet.send("<presence type='subscribe' to='romeo@test.example/garden'/>")
	juliet.expect("request back", "push romeo from ask")
	romeo.expect("request back", "subscribe from juliet")
	romeo.send("<presence type='subscribed' to='juliet@test.example'/>")
	romeo.expect("approval back", "push juliet both")
	juliet.expect("approval back", "subscribed from romeo; push romeo both; available from romeo/garden")

	// Presence follows; a second resource hears of everybody.
	romeo.send("<presence><show>away</show></presence>")
	romeo.expect("change", "available from romeo/garden")
	juliet.expect("change", "available from romeo/garden")
	romeo2 := f.dial().login("romeo", "home")
	romeo2.send("<presence/>")
	if got := summary(romeo2.settled()); got != "available from romeo/home; available from romeo/garden; available from juliet/balcony" {
		t.Errorf("second resource: %s", got)
	}
	juliet.expect("second resource", "available from romeo/home")
	romeo.expect("second resource", "available from romeo/home")
	romeo2.conn.Close() // no farewell
	e := juliet.next()
	if got := summary([]*stanza.Element{e}); got != "unavailable from romeo/home" {
		t.Errorf("lost connection: %s", got)
	}
	romeo.expect("lost connection", "unavailable from romeo/home")

	// A request to who granted one already is answered by the server.
	romeo.send("<presence type='subscribe' to='juliet@test.example'/>")
	romeo.expect("superfluous request", "subscribed from juliet")
	juliet.expect("superfluous request", "")

	romeo.send("<presence type='unsubscribe' to='juliet@test.example'/>")
	romeo.expect("unsubscribe", "push juliet from; unavailable from juliet/balcony")
	juliet.expect("unsubscribe", "unsubscribe from romeo; push romeo to")
	juliet.send("<presence><show>dnd</show></presence>")
	juliet.settled()
	romeo.expect("no presence without subscription", "")
	romeo.send("<presence type='unsubscribed' to='juliet@test.example'/>")
	romeo.expect("cancel", "push juliet none")
	juliet.expect("cancel", "unsubscribed from romeo; push romeo none; unavailable from romeo/garden")

	// Denial.
	romeo.send("<presence type='subscribe' to='juliet@test.example'/>")
	romeo.expect("request", "push juliet none ask")
	juliet.expect("request", "subscribe from romeo")
	juliet.send("<presence type='unsubscribed' to='romeo@test.example'/>")
	juliet.expect("denial", "")
	romeo.expect("denial", "unsubscribed from juliet; push juliet none")

	romeo.send("<presence type='subscribe' to='nobody@test.example'/>")
	romeo.expect("request to nobody", "push nobody none ask")
	for _, bad := range []string{"<presence type='subscribe'/>", "<presence type='nonsense' to='juliet@test.example'/>", "<presence><priority>200</priority></presence>"} {
		romeo.send("%s", bad)
		wantCondition(t, romeo.next(), "modify/bad-request")
	}
	romeo.send("<presence to='other.example'/>")
	wantCondition(t, romeo.next(), "cancel/remote-server-not-found")
}

func TestRosterRemovalEndsSubscriptions(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	juliet, romeo := f.online("juliet", "balcony"), f.online("romeo", "garden")
	for _, c := range []*client{juliet, romeo} {
		c.iq("get", "", "<query xmlns='jabber:iq:roster'/>")
	}
	for i, c := range []*client{romeo, juliet} {
		other := []*client{juliet, romeo}[i]
		bare := func(c *client) string { b, _, _ := strings.Cut(c.full, "/"); return b }
		c.send("<presence type='subscribe' to='%s'/>", bare(other))
		c.settled()
		other.send("<presence type='subscribed' to='%s'/>", bare(c))
		other.settled()
		c.settled()
	}
	juliet.settled()
	romeo.settled()
	wantCondition(t, juliet.iq("set", "", "<query xmlns='jabber:iq:roster'><item jid='romeo@test.example' subscription='remove'/></query>"), "result")
	juliet.expect("removal", "push romeo remove; unavailable from romeo/garden")
	romeo.expect("removal", "unsubscribe from juliet; unsubscribed from juliet; push juliet none; unavailable from juliet/balcony")
}

// TestDeletedContact: who gets the name of a deleted account does not get its
// subscriptions.
func TestDeletedContact(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	juliet, romeo := f.online("juliet", "balcony"), f.online("romeo", "garden")
	romeo.send("<presence type='subscribe' to='juliet@test.example'/>")
	romeo.settled()
	juliet.send("<presence type='subscribed' to='romeo@test.example'/>")
	juliet.settled()
	if got := summary(romeo.settled()); got != "available from juliet/balcony" {
		t.Fatalf("subscribed: %s", got)
	}
	j := jid.MustParse("romeo@test.example")
	if err := f.s.c.Accounts.Delete(context.Background(), j, "test"); err != nil {
		t.Fatal(err)
	}
	f.s.Kick(j)
	romeo.streamError("not-authorized")
	f.account("romeo")
	other := f.online("romeo", "garden")
	juliet.send("<presence><show>away</show></presence>")
	juliet.settled()
	other.nothing("another romeo sees juliet")
	item := juliet.iq("get", "", "<query xmlns='jabber:iq:roster'/>").Child(nsRoster, "query").First()
	if item.Attr("jid") != j.String() || item.Attr("subscription") != "none" {
		t.Errorf("juliet's roster says %s", item.Bytes())
	}
}

func TestDirectedPresence(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	juliet, romeo := f.online("juliet", "balcony"), f.online("romeo", "garden")
	romeo.send("<presence to='juliet@test.example'/><presence to='%s'/>", juliet.full)
	romeo.settled()
	juliet.expect("directed", "available from romeo/garden; available from romeo/garden")
	romeo.send("<presence type='unavailable' to='juliet@test.example'/>")
	romeo.settled()
	juliet.expect("directed end", "unavailable from romeo/garden")
	romeo.conn.Close()
	if got := summary([]*stanza.Element{juliet.next()}); got != "unavailable from romeo/garden" {
		t.Errorf("leaving: %s", got)
	}
	juliet.expect("once", "")
}

// TestPresenceRace: two contacts come and go at once; in the end each knows the
// truth about the other.
func TestPresenceRace(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	juliet, romeo := f.online("juliet", "balcony"), f.online("romeo", "garden")
	juliet.send("<presence type='subscribe' to='romeo@test.example'/>")
	juliet.settled()
	romeo.send("<presence type='subscribed' to='juliet@test.example'/>")
	romeo.settled()
	juliet.settled()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			romeo.send("<presence type='unavailable'/><presence/>")
		}
		romeo.settled()
	}()
	for range 100 {
		juliet.send("<presence type='unavailable'/><presence/>")
	}
	heard := juliet.settled()
	<-done
	// Only now: while she is unavailable she is told nothing.
	romeo.send("<presence type='unavailable'/>")
	romeo.settled()
	last := "nothing"
	for _, e := range append(heard, juliet.settled()...) {
		if strings.HasPrefix(e.Attr("from"), "romeo@") {
			last = e.Attr("type")
		}
	}
	if last != "unavailable" {
		t.Errorf("romeo left, and the last that juliet heard is %q", last)
	}
}
