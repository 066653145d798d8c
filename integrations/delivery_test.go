package integrations

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

// accounts counts those that account made: a site outlives a test that is run
// several times.
var accounts atomic.Uint32

// account makes an account of the site that nobody has used.
func (s *site) account(t *testing.T, name string) (user string) {
	t.Helper()
	user = fmt.Sprint(name, "-", accounts.Add(1))
	if err := s.Register(t.Context(), user); err != nil {
		t.Fatal(err)
	}
	return user
}

// newcomer makes an account and connects to it.
func (s *site) newcomer(t *testing.T, name, resource string) *conformance.Client {
	t.Helper()
	return s.login(t, s.account(t, name), resource)
}

// stranger is a newcomer of another server.
func stranger(t *testing.T, far *peers.Server, name string) *conformance.Client {
	t.Helper()
	name = fmt.Sprint(name, "-", accounts.Add(1))
	if err := far.Register(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	c, err := conformance.Host{Domain: far.Host, Addr: far.C2SAddr}.Dial(t.Context(), name, "afar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// userOf is the name of a client's account.
func userOf(c *conformance.Client) string {
	user, _, _ := strings.Cut(c.Bare, "@")
	return user
}

// login connects to an account as an available resource.
func (s *site) login(t *testing.T, user, resource string) *conformance.Client {
	t.Helper()
	c, err := s.host(s.Host).Dial(t.Context(), user, resource)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Drop)
	return c
}

func send(t *testing.T, c *conformance.Client, xml string) {
	t.Helper()
	if err := c.Send(xml); err != nil {
		t.Fatal(err)
	}
}

// chat is so many messages to someone, in one string, bodies numbered after a
// name.
func chat(to, name string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<message to='%s' type='chat' id='%s-%d'><body>%s %d</body></message>", to, name, i, name, i)
	}
	return b.String()
}

func numbered(name string, n int) (bodies []string) {
	for i := range n {
		bodies = append(bodies, fmt.Sprintf("%s %d", name, i))
	}
	return bodies
}

// received is a message as its recipient got it.
type received struct {
	id   string // by the archive of its owner; "" without
	body string
}

// receive takes the next n messages with a body, and the ids that the archive of
// owner gave them; none may have two.
func receive(t *testing.T, c *conformance.Client, owner string, n int) (got []received) {
	t.Helper()
	for len(got) < n {
		e, err := c.Next()
		if err != nil {
			t.Fatalf("%s: after %d of %d messages: %v", c.JID, len(got), n, err)
		}
		if e.Name.Local != "message" || e.Child("body") == nil {
			continue
		}
		id, ids := conformance.StanzaID(e, owner)
		if ids > 1 {
			t.Errorf("%s got a message with %d ids by %s: %s", c.JID, ids, owner, e)
		}
		got = append(got, received{id, e.Child("body").Content()})
	}
	return got
}

func bodies(got []received) (out []string) {
	for _, r := range got {
		out = append(out, r.body)
	}
	return out
}

// archiveOf reads the whole archive of owner, "" for the client's own.
func archiveOf(t *testing.T, c *conformance.Client, owner string) (got []received) {
	t.Helper()
	words := ""
	if owner != "" {
		words = "to=" + owner
	}
	all, err := c.Walk(words, 50)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		got = append(got, received{m.ID, m.Body()})
	}
	return got
}

// checkStamped compares what was received with the archive: the same messages in
// the same order, under the ids that they came with.
func checkStamped(t *testing.T, what string, got, archive []received) {
	t.Helper()
	for i, r := range got {
		if r.id == "" {
			t.Errorf("%s: %q came without an id", what, r.body)
		}
		if i < len(archive) && archive[i] != r {
			t.Fatalf("%s: message %d came as %v and is archived as %v", what, i, r, archive[i])
		}
	}
	if len(got) != len(archive) {
		t.Errorf("%s: %d messages came, %d are archived: %q", what, len(got), len(archive), bodies(archive))
	}
}

// TestOffline: what was stored for who was away arrives with its one id, and is
// archived once.
func TestOffline(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		user := s.account(t, "juliet")
		juliet := user + "@" + s.Host
		romeo := s.newcomer(t, "romeo", "orchard")
		send(t, romeo, chat(juliet, "art thou there", 20))
		// The answer comes after them: the server has them all.
		if _, err := romeo.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err != nil {
			t.Fatal(err)
		}
		c := s.login(t, user, "balcony")
		got := receive(t, c, juliet, 20)
		if want := numbered("art thou there", 20); !slices.Equal(bodies(got), want) {
			t.Errorf("got %q, want %q", bodies(got), want)
		}
		checkStamped(t, "stored and delivered later", got, archiveOf(t, c, ""))
		if sent := archiveOf(t, romeo, ""); !slices.Equal(bodies(sent), numbered("art thou there", 20)) {
			t.Errorf("the sender's archive: %q", bodies(sent))
		}
	})
}

// TestOfflineAfterQuery: who has read the archive before coming online is not sent
// once more what was stored meanwhile, as with Prosody's own mod_mam. ejabberd's
// mod_offline keeps to what it stored.
func TestOfflineAfterQuery(t *testing.T) {
	t.Parallel()
	k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == "prosody" })]
	conformance.NeedDebian(t, k.packages...)
	s := sharedSite(t, k)
	user := s.account(t, "juliet")
	romeo := s.newcomer(t, "romeo", "orchard")
	send(t, romeo, chat(user+"@"+s.Host, "meanwhile", 5))
	if _, err := romeo.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err != nil {
		t.Fatal(err)
	}
	c, err := conformance.Dial(t.Context(), conformance.DialOptions{
		Addr: s.C2SAddr, Domain: s.Host, User: user, Password: conformance.Password, Resource: "balcony",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Drop)
	if got := bodies(archiveOf(t, c, "")); !slices.Equal(got, numbered("meanwhile", 5)) {
		t.Errorf("archived is %q", got)
	}
	if err := c.Available(); err != nil {
		t.Fatal(err)
	}
	send(t, romeo, chat(c.JID, "now", 1))
	if got := bodies(receive(t, c, c.Bare, 1)); got[0] != "now 0" {
		t.Errorf("%q comes again, after the archive was read", got)
	}
}

// TestTwoResources: each device that gets a message, itself or as a carbon, is
// told the id that its owner's archive has for it.
func TestTwoResources(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		romeo, balcony := s.newcomer(t, "romeo", "orchard"), s.newcomer(t, "juliet", "balcony")
		garden, chamber := s.login(t, userOf(romeo), "garden"), s.login(t, userOf(balcony), "chamber")
		for _, c := range []*conformance.Client{garden, chamber} {
			if answer, err := c.Call("set", "<enable xmlns='urn:xmpp:carbons:2'/>"); err != nil || answer.Attr("type") != "result" {
				t.Fatal(answer, err)
			}
		}
		const n = 30
		send(t, romeo, chat(balcony.JID, "hi", n))
		direct := receive(t, balcony, balcony.Bare, n)
		copies := func(c *conformance.Client, direction string) (got []received) {
			for range n {
				e, err := c.Next()
				if err != nil {
					t.Fatal(err)
				}
				m := e.Child("{urn:xmpp:carbons:2}"+direction, "forwarded", "message")
				if m == nil {
					t.Fatalf("want a carbon, got %s", e)
				}
				id, ids := conformance.StanzaID(m, c.Bare)
				if ids != 1 {
					t.Errorf("a carbon with %d ids by %s: %s", ids, c.Bare, e)
				}
				got = append(got, received{id, m.Child("body").Content()})
			}
			return got
		}
		checkStamped(t, "to balcony", direct, archiveOf(t, balcony, ""))
		checkStamped(t, "carbons to chamber", copies(chamber, "received"), direct)
		checkStamped(t, "carbons to garden", copies(garden, "sent"), archiveOf(t, romeo, ""))
	})
}

// TestComponentMessages: messages of another component are archived by who gets
// them, and those to it by who sends them.
func TestComponentMessages(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		juliet := s.newcomer(t, "juliet", "balcony")
		bot, err := conformance.DialComponent(t.Context(), s.ComponentAddr, botDomain(k, "beeper"), botSecret)
		if err != nil {
			t.Fatal(err)
		}
		defer bot.Close()
		const n = 80
		var all strings.Builder
		for i := range n {
			fmt.Fprintf(&all, "<message from='bot%d@%s' to='%s' type='chat'><body>beep %d</body></message>", i%7, botDomain(k, "beeper"), juliet.JID, i)
		}
		send(t, bot, all.String())
		got := receive(t, juliet, juliet.Bare, n)
		if !slices.Equal(bodies(got), numbered("beep", n)) {
			t.Errorf("got %q", bodies(got))
		}
		checkStamped(t, "from a component", got, archiveOf(t, juliet, ""))

		send(t, juliet, chat("bot1@"+botDomain(k, "beeper"), "hush", n))
		if got := bodies(receive(t, bot, "nobody", n)); !slices.Equal(got, numbered("hush", n)) {
			t.Errorf("the component got %q", got)
		}
		sent := archiveOf(t, juliet, "")[n:]
		if !slices.Equal(bodies(sent), numbered("hush", n)) {
			t.Errorf("sent and archived: %q", bodies(sent))
		}
	})
}

// TestPipelining: a client that writes 200 messages at once is served to the
// last one, and goes on being served.
func TestPipelining(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		juliet, romeo := s.newcomer(t, "juliet", "balcony"), s.newcomer(t, "romeo", "orchard")
		const n = 200
		for round := range 3 {
			name := fmt.Sprint("round ", round)
			send(t, romeo, chat(juliet.JID, name, n)+"<iq type='get' id='"+fmt.Sprint("after", round)+"'><ping xmlns='urn:xmpp:ping'/></iq>")
			if e, err := romeo.Next(); err != nil || e.Attr("id") != fmt.Sprint("after", round) {
				t.Fatalf("want the answer to what followed the messages, got %v, %v", e, err)
			}
			if got := bodies(receive(t, juliet, juliet.Bare, n)); !slices.Equal(got, numbered(name, n)) {
				t.Errorf("got %q", got)
			}
		}
		for _, c := range []*conformance.Client{juliet, romeo} {
			got := bodies(archiveOf(t, c, ""))
			want := slices.Concat(numbered("round 0", n), numbered("round 1", n), numbered("round 2", n))
			if !slices.Equal(got, want) {
				t.Errorf("%s has %d messages archived, want %d, or in another order", c.Bare, len(got), len(want))
			}
		}
	})
}

// TestManySenders: several people write to one at the same time. She sees their
// messages in the order that her archive has, so that a client that asks for
// everything after the last id it saw misses none.
func TestManySenders(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		juliet := s.newcomer(t, "juliet", "balcony")
		const senders, n = 8, 50
		for i := range senders {
			c := s.newcomer(t, "suitor", "street")
			go func() {
				// A failure shows as messages that are missing below.
				_ = c.Send(chat(juliet.JID, fmt.Sprint("suitor", i), n))
			}()
		}
		got := receive(t, juliet, juliet.Bare, senders*n)
		archive := archiveOf(t, juliet, "")
		checkStamped(t, "from all", got, archive)
		for i := range senders {
			name := fmt.Sprint("suitor", i)
			if sent := withName(bodies(archive), name); !slices.Equal(sent, numbered(name, n)) {
				t.Errorf("of %s are archived: %q", name, sent)
			}
		}
	})
}

// TestFederation: messages from and to another server's user are archived here,
// and that server's users can't forge the ids of an archive here.
func TestFederation(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s, far := sharedSite(t, k), far(t)
		juliet, paris := s.newcomer(t, "juliet", "balcony"), stranger(t, far, "paris")
		const n = 40
		send(t, paris, strings.ReplaceAll(chat(juliet.JID, "from afar", n), "</message>",
			"<stanza-id xmlns='urn:xmpp:sid:0' by='"+juliet.Bare+"' id='forged'/></message>"))
		got := receive(t, juliet, juliet.Bare, n)
		if !slices.Equal(bodies(got), numbered("from afar", n)) {
			t.Errorf("got %q", bodies(got))
		}
		checkStamped(t, "from another server", got, archiveOf(t, juliet, ""))
		send(t, juliet, chat(paris.JID, "to afar", n))
		for i, e := range receive(t, paris, juliet.Bare, n) {
			if e.id != "" || e.body != fmt.Sprint("to afar ", i) {
				t.Errorf("message %d came as %v", i, e)
			}
		}
		if sent := archiveOf(t, juliet, "")[n:]; !slices.Equal(bodies(sent), numbered("to afar", n)) {
			t.Errorf("sent and archived: %q", bodies(sent))
		}
	})
}

// TestQueriesInOrder: what one client asks for in one breath, large pages and small
// ones, is answered in that order (RFC 6120, section 10.1).
func TestQueriesInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		juliet, romeo := s.newcomer(t, "juliet", "balcony"), s.newcomer(t, "romeo", "orchard")
		send(t, romeo, chat(juliet.JID, "page", 60))
		receive(t, juliet, juliet.Bare, 60)
		const n = 60
		var all strings.Builder
		for i := range n {
			fmt.Fprintf(&all, "<iq type='set' id='ask-%d'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>%d</max></set></query></iq>", i, 50*(i%2))
		}
		send(t, juliet, all.String())
		for i := 0; i < n; {
			e, err := juliet.Next()
			if err != nil {
				t.Fatal(err)
			}
			if e.Name.Local != "iq" {
				continue
			}
			if e.Attr("id") != fmt.Sprint("ask-", i) {
				t.Fatalf("the answer to %s came in the place of that to ask-%d", e.Attr("id"), i)
			}
			i++
		}
	})
}
