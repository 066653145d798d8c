package integrations

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
)

// pair is two people of one host.
type pair struct{ juliet, romeo *conformance.Client }

func (s *site) pair(t *testing.T, domain, name string) pair {
	t.Helper()
	var p pair
	for who, c := range map[string]**conformance.Client{"juliet": &p.juliet, "romeo": &p.romeo} {
		h := s.host(domain)
		if err := h.AddUser(t.Context(), name+"-"+who); err != nil {
			t.Fatal(err)
		}
		var err error
		if *c, err = h.Dial(t.Context(), name+"-"+who, "here"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*c).Drop)
	}
	return p
}

// say lets romeo send juliet so many messages, and returns them as they arrived.
func (p pair) say(t *testing.T, name string, n int) []received {
	t.Helper()
	send(t, p.romeo, chat(p.juliet.JID, name, n))
	got := receive(t, p.juliet, p.juliet.Bare, n)
	if want := numbered(name, n); !slices.Equal(bodies(got), want) {
		t.Fatalf("%s got %q, want %q", p.juliet.Bare, bodies(got), want)
	}
	return got
}

// drain returns when the module has given all that it kept to the archive: a
// message is stamped only behind everything that was delivered before it.
func (p pair) drain(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for p.say(t, "drained", 1)[0].id == "" {
		if time.Now().After(deadline) {
			t.Fatal("what the module keeps for the archive does not reach it")
		}
		time.Sleep(20 * time.Millisecond) // until the next look
	}
}

// untilError waits until the archive is known to be away, and returns the error
// that a query then gets.
func untilError(t *testing.T, c *conformance.Client) string {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		answer, err := c.Call("set", "<query xmlns='urn:xmpp:mam:2'/>")
		if err != nil {
			t.Fatal(err)
		}
		if answer.Attr("type") == "error" {
			return errorOf(answer)
		}
		if time.Now().After(deadline) {
			t.Fatal("the link is cut, and the archive still answers")
		}
		time.Sleep(20 * time.Millisecond) // until the next look
	}
}

// TestUnreachable: what a host's messages become while the archive can't be
// reached is what on_failure says, and afterwards the archive has what it must.
func TestUnreachable(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := ownSite(t, k, siteOptions{proxied: true, failing: []string{"bounce", "pass", "full"}})
		spool, bounce, pass := s.pair(t, s.Host, "away"), s.pair(t, "bounce."+s.Host, "away"), s.pair(t, "pass."+s.Host, "away")
		for _, p := range []pair{spool, bounce, pass} {
			if p.say(t, "before", 1)[0].id == "" {
				t.Fatal("not archived before the link is cut")
			}
		}
		room := "away@" + s.RoomsHost
		if err := spool.juliet.NewRoom(room, "juliet"); err != nil {
			t.Fatal(err)
		}
		if err := s.link.cut(); err != nil {
			t.Fatal(err)
		}
		cutAt := time.Now()
		for _, p := range []pair{spool, bounce, pass} {
			if got := untilError(t, p.juliet); got != "remote-server-timeout wait" {
				t.Errorf("a query without an archive is answered %q", got)
			}
			if slices.Contains(features(t, p.juliet, ""), "urn:xmpp:mam:2") {
				t.Errorf("%s still announces an archive", p.juliet.Bare)
			}
		}

		for _, p := range []pair{spool, pass} {
			for _, r := range p.say(t, "meanwhile", 10) {
				if r.id != "" {
					t.Errorf("%q came with the id %s of an archive that is away", r.body, r.id)
				}
			}
		}
		send(t, spool.juliet, strings.ReplaceAll(chat(room, "in the room", 10), "'chat'", "'groupchat'"))
		for _, r := range receive(t, spool.juliet, room, 10) {
			if r.id != "" {
				t.Errorf("%q came with the id %s of an archive that is away", r.body, r.id)
			}
		}
		send(t, bounce.romeo, chat(bounce.juliet.JID, "meanwhile", 3))
		for i := range 3 {
			e, err := bounce.romeo.Next()
			if err != nil {
				t.Fatal(err)
			}
			if e.Attr("id") != fmt.Sprintf("meanwhile-%d", i) || errorOf(e) != "resource-constraint wait" {
				t.Errorf("for message %d came %s", i, e)
			}
		}

		if err := s.link.mend(); err != nil {
			t.Fatal(err)
		}
		mended := time.Now()
		for _, p := range []pair{spool, bounce, pass} {
			if err := s.untilAnswers(t.Context(), domainOf(p.juliet)); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(features(t, p.juliet, ""), "urn:xmpp:mam:2") {
				t.Errorf("%s does not announce its archive", p.juliet.Bare)
			}
		}
		spool.drain(t)
		for _, p := range []pair{bounce, pass} {
			if p.say(t, "after", 1)[0].id == "" {
				t.Errorf("%s: not archived after the link was mended", p.juliet.Bare)
			}
			for _, c := range []*conformance.Client{p.juliet, p.romeo} {
				if got := bodies(archiveOf(t, c, "")); !slices.Equal(got, []string{"before 0", "after 0"}) {
					t.Errorf("%s has archived: %q", c.Bare, got)
				}
			}
		}
		want := append([]string{"before 0"}, numbered("meanwhile", 10)...)
		for _, c := range []*conformance.Client{spool.juliet, spool.romeo} {
			if got := bodies(archiveOf(t, c, "")); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
				t.Errorf("%s has archived: %q", c.Bare, got)
			}
		}
		all, err := spool.juliet.Walk("", 50)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if !strings.HasPrefix(m.Body(), "meanwhile") {
				continue
			}
			// To the second, which is what a server may keep.
			at, err := time.Parse(time.RFC3339Nano, m.Stamp)
			if err != nil || at.Before(cutAt.Truncate(time.Second)) || at.After(mended) {
				t.Errorf("%q was delivered after %v and before %v, and is shown with %s", m.Body(), cutAt, mended, m.Stamp)
			}
		}
		for {
			// The room has a spool of its own.
			send(t, spool.juliet, strings.Replace(chatOne(room, "drained", 0), "'chat'", "'groupchat'", 1))
			if receive(t, spool.juliet, room, 1)[0].id != "" {
				break
			}
			if time.Since(mended) > patience {
				t.Fatal("what the module keeps for the room's archive does not reach it")
			}
			time.Sleep(20 * time.Millisecond) // until the next look
		}
		if got := withName(bodies(archiveOf(t, spool.juliet, room)), "in the room"); !slices.Equal(got, numbered("in the room", 10)) {
			t.Errorf("the room has archived: %q", got)
		}

		t.Run("links", func(t *testing.T) { s.links(t) })
		t.Run("full", func(t *testing.T) { s.fullSpool(t) })
		t.Run("resumed sender", func(t *testing.T) { s.resumedSender(t) })
	})
}

func domainOf(c *conformance.Client) string {
	_, domain, _ := strings.Cut(c.Bare, "@")
	return domain
}

// features are what an address announces, "" for the client's own account.
func features(t *testing.T, c *conformance.Client, to string) (vars []string) {
	t.Helper()
	if to == "" {
		to = c.Bare
	}
	answer, err := c.CallTo(to, "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>")
	if err != nil {
		t.Fatal(err)
	}
	q := answer.Child("query")
	if q == nil || answer.Attr("type") != "result" {
		t.Fatal(answer)
	}
	for _, f := range q.Children {
		if f.Name.Local == "feature" {
			vars = append(vars, f.Attr("var"))
		}
	}
	return vars
}

// links: mamlog links shows that the link is up again, why it was down, and what the
// module says of itself.
func (s *site) links(t *testing.T) {
	deadline := time.Now().Add(patience)
	for {
		out, err := s.archive.Run(t.Context(), "", "links", "--json")
		if err != nil {
			t.Fatal(err)
		}
		var link struct {
			Server, Component, State string
			Fault                    *string
			Hosts                    []struct {
				Name, Software, Serves, Error string
				Served                        bool
				Spool, Version                int
			}
		}
		if err := json.Unmarshal(out, &link); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		empty, names := true, map[string]string{}
		for _, h := range link.Hosts {
			names[h.Name] = h.Serves
			empty = empty && h.Spool == 0
			if !h.Served || !strings.HasPrefix(strings.ToLower(h.Software), s.name+" ") || h.Version != 1 {
				t.Errorf("a host: %+v", h)
			}
		}
		if link.Server != s.link.addr || link.Component != s.ArchiveHost || link.State != "up" || link.Fault == nil || *link.Fault == "" ||
			names[s.Host] != "accounts" || names[s.RoomsHost] != "rooms" {
			t.Fatalf("%s", out)
		}
		if empty {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the spools are drained, and do not look so: %s", out)
		}
		time.Sleep(100 * time.Millisecond) // until the next look
	}
}

// fullSpool: what the module can't keep any more goes back to its sender. What was
// delivered is archived afterwards, what came back is not.
func (s *site) fullSpool(t *testing.T) {
	p := s.pair(t, "full."+s.Host, "full")
	if err := s.link.cut(); err != nil {
		t.Fatal(err)
	}
	const n, size = 30, 100_000
	for i := range n {
		send(t, p.romeo, strings.Replace(chatOne(p.juliet.JID, "large", i), "</message>", "<filler xmlns='urn:example:filler'>"+strings.Repeat("x", size)+"</filler></message>", 1))
	}
	back := map[string]bool{}
	send(t, p.romeo, "<iq type='get' id='over'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		e, err := p.romeo.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e.Attr("id") == "over" {
			break
		}
		if errorOf(e) != "resource-constraint wait" {
			t.Errorf("came back: %s %s", e.Attr("id"), errorOf(e))
		}
		back[strings.Replace(e.Attr("id"), "-", " ", 1)] = true
	}
	if len(back) == 0 || len(back) == n {
		t.Fatalf("%d of %d messages of %d bytes came back", len(back), n, size)
	}
	delivered := bodies(receive(t, p.juliet, p.juliet.Bare, n-len(back)))
	for _, b := range delivered {
		if back[b] {
			t.Errorf("%s was delivered, and came back", b)
		}
	}
	if err := s.link.mend(); err != nil {
		t.Fatal(err)
	}
	if err := s.untilAnswers(t.Context(), domainOf(p.juliet)); err != nil {
		t.Fatal(err)
	}
	p.drain(t)
	for _, c := range []*conformance.Client{p.juliet, p.romeo} {
		if got := withName(bodies(archiveOf(t, c, "")), "large"); !slices.Equal(got, delivered) {
			t.Errorf("%s has archived %q, delivered were %q", c.Bare, got, delivered)
		}
	}
}

// resumedSender: a client whose connection breaks while its messages are being
// appended, and that sends again what the server had not taken, has each of them
// archived and delivered once, in order. The archive hangs at that moment, so
// that appends are under way for certain.
func (s *site) resumedSender(t *testing.T) {
	p := s.pair(t, s.Host, "resumed")
	id := manage(t, p.romeo)
	const n = 60
	if err := s.archive.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		send(t, p.romeo, chatOne(p.juliet.JID, "mid", i))
	}
	p.romeo.Drop()
	p.romeo = s.resume(t, p.romeo, id)
	for i := int(p.romeo.Taken); i < n; i++ {
		send(t, p.romeo, chatOne(p.juliet.JID, "mid", i))
	}
	if err := s.archive.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := bodies(receive(t, p.juliet, p.juliet.Bare, n)); !slices.Equal(got, numbered("mid", n)) {
		t.Errorf("the server had taken %d when the stream was resumed; then arrived %q", p.romeo.Taken, got)
	}
	p.drain(t)
	for _, c := range []*conformance.Client{p.juliet, p.romeo} {
		if got := withName(bodies(archiveOf(t, c, "")), "mid"); !slices.Equal(got, numbered("mid", n)) {
			t.Errorf("%s has archived: %q", c.Bare, got)
		}
	}
}
