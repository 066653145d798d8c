package integrations

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

// askingSite is a server without the module that asks mamlog all the same
// (XEP-0355, XEP-0356). What can be read is what romeo said to juliet at a host of
// mamlog's own, of the same name: said is that, as juliet got it.
func askingSite(t *testing.T, k kind, n int) (s *site, said []received) {
	t.Helper()
	addrs, domain := serverAddrs(t), "asking."+k.name+".example"
	server, err := k.start(t.Context(), peers.Options{
		Host: domain, Delegation: true, Components: map[string]string{botDomain(k, "beeper"): botSecret},
		S2SAddr: addrs[domain], Remote: map[string]string{farDomain: addrs[farDomain]},
	})
	if err != nil {
		t.Fatal(err)
	}
	s = &site{kind: k, Server: server}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if s.archive != nil {
			s.showLogs(t)
		}
	})
	if v := s.Version; k.name == "ejabberd" && "24.10" <= v && v < "25.03" {
		conformance.Skip(t, "mod_privilege of ejabberd %s drops what the archive answers", v)
	}
	dir, err := os.MkdirTemp("", "mamlog-site-")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := peers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	begin := func(more string) {
		t.Helper()
		s.archive, err = conformance.NewArchive(dir, "archive_expires_after: never\nhosts: ["+domain+"]\n"+more)
		if err == nil {
			err = s.archive.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	begin(fmt.Sprintf("c2s: {listen: %q, allow_plaintext: true}\n", addr))
	people := map[string]*conformance.Client{}
	for _, user := range []string{"juliet", "romeo"} {
		if _, err := s.archive.Run(t.Context(), conformance.Password+"\n", "user", "add", user+"@"+domain); err != nil {
			t.Fatal(err)
		}
		if people[user], err = (conformance.Host{Domain: domain, Addr: addr}).Dial(t.Context(), user, "before"); err != nil {
			t.Fatal(err)
		}
	}
	send(t, people["romeo"], chat("juliet@"+domain, "before", n))
	said = receive(t, people["juliet"], "juliet@"+domain, n)
	for _, c := range people {
		c.Close()
	}
	if err := s.archive.Stop(); err != nil {
		t.Fatal(err)
	}

	begin(fmt.Sprintf("links:\n  - {server: %q, domain: %q, secret: %q, hosts: [%s], delegation: true}\n",
		s.ComponentAddr, s.ArchiveHost, s.Secret, domain))
	if err := s.Register(t.Context(), "juliet", "romeo"); err != nil {
		t.Fatal(err)
	}
	return s, said
}

// device is a login that has taken note of what the server has to tell it: Prosody's
// mod_privilege tells every client which privileges it has, and that is none.
func (s *site) device(t *testing.T, user, resource string) *conformance.Client {
	t.Helper()
	c := s.login(t, user, resource)
	send(t, c, "<iq type='get' id='told'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		e, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e.Attr("id") == "told" {
			return c
		}
	}
}

// untilAsked waits until a client's query is answered.
func untilAsked(t *testing.T, c *conformance.Client) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		answer, err := c.Call("get", "<query xmlns='urn:xmpp:mam:2'/>")
		if err != nil {
			t.Fatal(err)
		}
		if answer.Attr("type") == "result" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the archive does not answer: %s", answer)
		}
		time.Sleep(20 * time.Millisecond) // until the next look
	}
}

// TestDelegation: the clients of a server without the module read their archives.
// The results come from their own account, to the one that asked and no other;
// nobody reads anybody else's; and nothing is captured.
func TestDelegation(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		if k.name == "prosody" {
			conformance.NeedDebian(t, "prosody-modules")
		}
		const n = 120
		s, said := askingSite(t, k, n)
		juliet, romeo := s.device(t, "juliet", "balcony"), s.device(t, "romeo", "orchard")
		untilAsked(t, juliet)
		chamber := s.device(t, "juliet", "chamber")
		if answer, err := chamber.Call("set", "<enable xmlns='urn:xmpp:carbons:2'/>"); err != nil || answer.Attr("type") != "result" {
			t.Fatal(answer, err)
		}

		for _, to := range []string{"", juliet.Bare} {
			checkStamped(t, "asked to '"+to+"'", said, archiveOf(t, juliet, to))
			attr := ""
			if to != "" {
				attr = " to='" + to + "'"
			}
			send(t, juliet, "<iq type='set' id='asked'"+attr+"><query xmlns='urn:xmpp:mam:2' queryid='q'/></iq>")
			results := 0
			for {
				e, err := juliet.Next()
				if err != nil {
					t.Fatal(err)
				}
				if from := e.Attr("from"); e.Attr("to") != juliet.JID || from != juliet.Bare && (from != "" || e.Name.Local != "iq") {
					t.Errorf("asked to '%s', and got %s", to, e)
				}
				if e.Name.Local == "iq" {
					break
				}
				results++
			}
			if results != 50 {
				t.Errorf("asked to '%s': %d results on a page", to, results)
			}

			form, err := juliet.CallTo(to, "get", "<query xmlns='urn:xmpp:mam:2'/>")
			if err != nil || form.Child("query", "{jabber:x:data}x") == nil {
				t.Errorf("the form: %s, %v", form, err)
			}
			metadata, err := juliet.CallTo(to, "get", "<metadata xmlns='urn:xmpp:mam:2'/>")
			if err != nil || metadata.Child("metadata", "start").Attr("id") != said[0].id || metadata.Child("metadata", "end").Attr("id") != said[n-1].id {
				t.Errorf("metadata: %s, %v", metadata, err)
			}
			for _, policy := range []string{"roster", "always"} {
				set, err := juliet.CallTo(to, "set", "<prefs xmlns='urn:xmpp:mam:2' default='"+policy+"'><always/><never><jid>romeo@"+s.Host+"</jid></never></prefs>")
				if err != nil || set.Attr("type") != "result" {
					t.Errorf("preferences: %s, %v", set, err)
				}
				get, err := juliet.CallTo(to, "get", "<prefs xmlns='urn:xmpp:mam:2'/>")
				if err != nil || get.Child("prefs").Attr("default") != policy || get.Child("prefs", "never", "jid").Content() != "romeo@"+s.Host {
					t.Errorf("preferences: %s, %v", get, err)
				}
			}
			bad, err := juliet.CallTo(to, "set", "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><after>nothing</after></set></query>")
			if err != nil || errorOf(bad) != "item-not-found cancel" {
				t.Errorf("after an id that is not there: %s, %v", bad, err)
			}
		}
		if sent := archiveOf(t, romeo, ""); !slices.Equal(bodies(sent), numbered("before", n)) {
			t.Errorf("romeo reads %q", bodies(sent))
		}

		if own := features(t, juliet, ""); !slices.Contains(own, "urn:xmpp:mam:2") || !slices.Contains(own, "urn:xmpp:mam:2#extended") || slices.Contains(own, "urn:mamlog:trim:0") {
			t.Errorf("an account announces %q", own)
		}
		if theirs := features(t, juliet, s.Host); slices.Contains(theirs, "urn:xmpp:mam:2") {
			t.Errorf("the server announces %q", theirs)
		}

		t.Run("strangers", func(t *testing.T) { s.askAsStrangers(t, romeo, juliet.Bare) })
		t.Run("links", func(t *testing.T) { s.queriesOnly(t) })

		// What is said here and now is delivered and nothing more.
		for i, r := range (pair{juliet, romeo}).say(t, "now", 3) {
			if r.id != "" {
				t.Errorf("message %d came with the id %s", i, r.id)
			}
		}
		if err := s.archive.Kill(); err != nil {
			t.Fatal(err)
		}
		untilRefused(t, s.device(t, "juliet", "garden"))
		if err := s.archive.Start(); err != nil {
			t.Fatal(err)
		}
		untilAsked(t, juliet)
		checkStamped(t, "after a restart", said, archiveOf(t, juliet, ""))

		// The other device has the live messages, its own answer, and nothing else.
		for i := range 3 {
			e, err := chamber.Next()
			if err != nil || e.Child("{urn:xmpp:carbons:2}received", "forwarded", "message", "body").Content() != fmt.Sprint("now ", i) {
				t.Fatalf("another device got %s, %v", e, err)
			}
		}
		if answer, err := chamber.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err != nil {
			t.Errorf("another device got %s, %v", answer, err)
		}
	})
}

// untilRefused waits until the server knows that the archive is away, and says so.
// What it had passed on before is not answered: neither server waits for that.
func untilRefused(t *testing.T, c *conformance.Client) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		send(t, c, "<iq type='set' id='gone'><query xmlns='urn:xmpp:mam:2'/></iq><iq type='get' id='there'><ping xmlns='urn:xmpp:ping'/></iq>")
		for e, err := c.Next(); e.Attr("id") != "there"; e, err = c.Next() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Attr("type") == "error" {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the archive is gone, and queries are not refused")
		}
		time.Sleep(20 * time.Millisecond) // until the next look
	}
}

// askAsStrangers: nobody but its owner reads or changes anything of an account.
func (s *site) askAsStrangers(t *testing.T, romeo *conformance.Client, victim string) {
	bot, err := conformance.DialComponent(t.Context(), s.ComponentAddr, botDomain(s.kind, "beeper"), botSecret)
	if err != nil {
		t.Fatal(err)
	}
	defer bot.Close()
	askers := map[string]*conformance.Client{"another account": romeo, "a stranger": stranger(t, far(t), "eve"), "another component": bot}
	if s.name == "ejabberd" && s.Version >= "24.10" {
		delete(askers, "another component") // mod_privilege drops its iqs, and nobody answers
	}
	for who, c := range askers {
		for name, wish := range wishes(victim) {
			for _, to := range []string{victim, victim + "/away", s.Host, s.ArchiveHost} {
				answer, err := c.CallTo(to, wish[0], wish[1])
				if err != nil {
					t.Fatalf("%s asks %s for %s: %v", who, to, name, err)
				}
				got, want := errorOf(answer), answerTo(s, name, to, victim, "")
				if got != want && (to != s.Host || got != "forbidden auth") { // Prosody passes on what is for the server, too
					t.Errorf("%s asks %s for %s: got %q, want %q: %s", who, to, name, got, want, answer)
				}
			}
		}
	}
}

// queriesOnly: mamlog links says what the link is good for.
func (s *site) queriesOnly(t *testing.T) {
	out, err := s.archive.Run(t.Context(), "", "links")
	if err != nil || !strings.Contains(string(out), "queries only") {
		t.Errorf("%s, %v", out, err)
	}
	if out, err = s.archive.Run(t.Context(), "", "links", "--json"); err != nil {
		t.Fatal(err)
	}
	var link struct {
		State   string
		Queries struct{ Total int }
		Appends struct{ Total int }
		Hosts   []struct {
			Name              string
			Served, Delegated bool
		}
	}
	if err := json.Unmarshal(out, &link); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if link.State != "up" || link.Queries.Total == 0 || link.Appends.Total != 0 || len(link.Hosts) != 1 || link.Hosts[0].Served || !link.Hosts[0].Delegated {
		t.Errorf("%s", out)
	}
}
