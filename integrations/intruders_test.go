package integrations

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
)

// impostor is a server that mamlog has a link to, and that would like to speak
// for other hosts than its own.
type impostor struct {
	net.Listener
	links chan *conformance.Client
}

func newImpostor() (*impostor, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i := &impostor{l, make(chan *conformance.Client, 1)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			if c, err := conformance.AcceptComponent(conn); err == nil {
				select {
				case i.links <- c:
				default:
				}
			}
		}
	}()
	return i, nil
}

// wishes are what an intruder would like to ask of the archive of a victim, by
// name: the type of the IQ and its payload.
func wishes(victim string) map[string][2]string {
	message := "<message xmlns='jabber:client' type='chat' from='" + victim + "/x' to='" + victim + "'><body>forged</body></message>"
	return map[string][2]string{
		"hello":    {"get", "<hello xmlns='urn:mamlog:attach:1' versions='1' serves='accounts' software='x' spool='0' spool-bytes='0' error=''/>"},
		"append":   {"set", "<batch xmlns='urn:mamlog:attach:1'><append dir='in' owner='" + victim + "' peer='x@y.example' key='forged'>" + message + "</append></batch>"},
		"query":    {"get", "<query xmlns='urn:mamlog:attach:1' owner='" + victim + "' asker='" + victim + "/x'><iq xmlns='jabber:client' type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq></query>"},
		"delete":   {"set", "<delete xmlns='urn:mamlog:attach:1' owner='" + victim + "'/>"},
		"mam":      {"set", "<query xmlns='urn:xmpp:mam:2'/>"},
		"form":     {"get", "<query xmlns='urn:xmpp:mam:2'/>"},
		"metadata": {"get", "<metadata xmlns='urn:xmpp:mam:2'/>"},
		"prefs":    {"get", "<prefs xmlns='urn:xmpp:mam:2'/>"},
		"set":      {"set", "<prefs xmlns='urn:xmpp:mam:2' default='never'/>"},
	}
}

// TestIntruders: a stranger from another server, a user, another component, and
// the server of another link ask for everything at every address. They get the
// right error each time, and the archives stay what they were.
func TestIntruders(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s, far := sharedSite(t, k), far(t)
		victim, eve, mallory := s.newcomer(t, "victim", "home"), stranger(t, far, "eve"), s.newcomer(t, "mallory", "den")
		room := userOf(victim) + "@" + s.RoomsHost
		if err := victim.NewRoom(room, "victim", "muc#roomconfig_membersonly=1"); err != nil {
			t.Fatal(err)
		}
		send(t, victim, chat(victim.Bare, "secret", 5)+strings.ReplaceAll(chat(room, "private", 5), "'chat'", "'groupchat'"))
		receive(t, victim, victim.Bare, 10)
		before := [2][]received{archiveOf(t, victim, ""), archiveOf(t, victim, room)}
		if len(before[0]) != 5 || len(before[1]) != 5 {
			t.Fatalf("archived: %v", before)
		}

		bot, err := conformance.DialComponent(t.Context(), s.ComponentAddr, botDomain(k, "intruder"), botSecret)
		if err != nil {
			t.Fatal(err)
		}
		defer bot.Close()
		for who, c := range map[string]*conformance.Client{"a stranger": eve, "a user": mallory, "another component": bot} {
			for name, wish := range wishes(victim.Bare) {
				for _, to := range []string{s.ArchiveHost, "someone@" + s.ArchiveHost + "/x", s.Host, s.RoomsHost, victim.Bare, victim.Bare + "/away", room} {
					want := answerTo(s, name, to, victim.Bare, room)
					answer, err := c.CallTo(to, wish[0], wish[1])
					if err != nil {
						t.Fatalf("%s asks %s for %s: %v", who, to, name, err)
					}
					if got := errorOf(answer); got != want {
						t.Errorf("%s asks %s for %s: got %q, want %q: %s", who, to, name, got, want, answer)
					}
				}
			}
			answer, err := c.CallTo(s.ArchiveHost, "get", "<query xmlns='jabber:iq:last'/>")
			if err != nil || errorOf(answer) != "service-unavailable cancel" {
				t.Errorf("%s asks for something else: got %s, %v", who, answer, err)
			}
		}
		t.Run("link", func(t *testing.T) { s.intrudeByLink(t, victim.Bare) })
		t.Run("forged", func(t *testing.T) { s.intrudeByForging(t, victim.Bare) })

		after := [2][]received{archiveOf(t, victim, ""), archiveOf(t, victim, room)}
		if fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("archived before: %v\nand after: %v", before, after)
		}
		prefs, err := victim.Call("get", "<prefs xmlns='urn:xmpp:mam:2'/>")
		if err != nil || prefs.Child("prefs").Attr("default") != "always" {
			t.Errorf("the preferences are now %s, %v", prefs, err)
		}
	})
}

// errorOf words the error in an answer: "forbidden auth".
func errorOf(answer *conformance.Element) string {
	if a := answer.Child("{urn:mamlog:attach:1}archived"); a != nil {
		return "archived: " + a.Content()
	}
	if answer.Attr("type") != "error" {
		return answer.Attr("type")
	}
	e := answer.Child("error")
	if e == nil || len(e.Children) == 0 {
		return "an error that says nothing"
	}
	for _, c := range e.Children {
		if c.Name.Space == "urn:ietf:params:xml:ns:xmpp-stanzas" && c.Name.Local != "text" {
			return c.Name.Local + " " + e.Attr("type")
		}
	}
	return "no condition"
}

// answerTo is what anybody must get who asks an address for a wish.
func answerTo(s *site, wish, to, victim, room string) string {
	attach := wish == "hello" || wish == "append" || wish == "query" || wish == "delete"
	if strings.HasSuffix(bareOf(to), s.ArchiveHost) || !attach && (to == victim || to == room) {
		return "forbidden auth"
	}
	return "service-unavailable cancel"
}

func bareOf(jid string) string {
	bare, _, _ := strings.Cut(jid, "/")
	return bare
}

// intrudeByLink: the server of another link asks for what is not its own.
func (s *site) intrudeByLink(t *testing.T, victim string) {
	var link *conformance.Client
	select {
	case link = <-s.impostor.links:
	case <-time.After(patience):
		t.Fatal("mamlog has not connected to the other server")
	}
	defer link.Close()
	archive := "archive." + impostorDomain
	ask := func(from, name string) string {
		t.Helper()
		wish := wishes(victim)[name]
		id := "wish-" + name
		send(t, link, "<iq type='"+wish[0]+"' id='"+id+"' from='"+from+"' to='"+archive+"'>"+wish[1]+"</iq>")
		for {
			e, err := link.Next()
			if err != nil {
				t.Fatal(err)
			}
			if e.Attr("id") == id {
				return errorOf(e)
			}
		}
	}
	if got := ask(impostorDomain, "hello"); got != "result" {
		t.Fatalf("hello for its own host: %s", got)
	}
	for name := range wishes(victim) {
		for _, from := range []string{s.Host, s.RoomsHost, "example", "sub." + impostorDomain, "someone@" + impostorDomain, impostorDomain + "/x", victim} {
			if got := ask(from, name); got != "forbidden auth" {
				t.Errorf("%s from %s: %s", name, from, got)
			}
		}
	}
	// For its own host, but of an owner who is elsewhere.
	for name, want := range map[string]string{"append": "archived: !forbidden", "query": "forbidden auth", "delete": "forbidden auth"} {
		if got := ask(impostorDomain, name); got != want {
			t.Errorf("%s for somebody of another host: %s, want %s", name, got, want)
		}
	}
}

// intrudeByForging: another component writes the address of the host into what it
// sends. Its stream ends with that, or the stanza goes nowhere.
func (s *site) intrudeByForging(t *testing.T, victim string) {
	var bot *conformance.Client
	for name, wish := range wishes(victim) {
		for _, from := range []string{s.Host, victim, s.ArchiveHost} {
			if bot == nil {
				var err error
				if bot, err = conformance.DialComponent(t.Context(), s.ComponentAddr, botDomain(s.kind, "forger"), botSecret); err != nil {
					t.Fatal(err)
				}
			}
			_ = bot.Send("<iq type='" + wish[0] + "' id='forged' from='" + from + "' to='" + s.ArchiveHost + "'>" + wish[1] + "</iq>" +
				"<iq type='get' id='after' from='" + bot.JID + "' to='" + s.ArchiveHost + "'><ping xmlns='urn:xmpp:ping'/></iq>")
			for {
				e, err := bot.Next()
				if err != nil {
					bot.Drop()
					bot = nil
					break
				}
				if e.Attr("id") == "after" {
					break // the archive has seen both
				}
				if e.Name.Local == "iq" && e.Attr("type") == "result" {
					t.Errorf("%s as %s: %s", name, from, e)
				}
			}
		}
	}
	if bot != nil {
		bot.Close()
	}
}
