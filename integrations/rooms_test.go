package integrations

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"mamlog/cmd/mamlog/conformance"
)

// TestRoomOrder: messages that clients, a client of another server and a
// component send into a room at once arrive in one order everywhere, under the
// ids and in the order of the room's archive.
func TestRoomOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s, far := sharedSite(t, k), far(t)
		juliet, romeo, eve := s.newcomer(t, "juliet", "balcony"), s.newcomer(t, "romeo", "orchard"), stranger(t, far, "eve")
		room := userOf(juliet) + "@" + s.RoomsHost
		bot, err := conformance.DialComponent(t.Context(), s.ComponentAddr, botDomain(k, "occupant"), botSecret)
		if err != nil {
			t.Fatal(err)
		}
		defer bot.Close()
		if err := juliet.NewRoom(room, "juliet"); err != nil {
			t.Fatal(err)
		}
		occupants := map[string]*conformance.Client{"juliet": juliet, "romeo": romeo, "eve": eve, "bot": bot}
		for nick, c := range occupants {
			if nick == "juliet" {
				continue
			}
			if _, err := c.Join(room, nick, conformance.JoinOptions{}); err != nil {
				t.Fatal(err)
			}
		}

		const each = 20
		for nick, c := range occupants {
			go func() {
				for i := range each {
					from := ""
					if c == bot {
						from = " from='" + bot.JID + "'"
					}
					// A failure shows as a message that is missing below.
					_ = c.Send(fmt.Sprintf("<message%s to='%s' type='groupchat' id='%s%d'><body>%s %d</body></message>", from, room, nick, i, nick, i))
				}
			}()
		}
		got := map[string][]received{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for nick, c := range occupants {
			wg.Go(func() {
				all := receive(t, c, room, each*len(occupants))
				mu.Lock()
				defer mu.Unlock()
				got[nick] = all
			})
		}
		wg.Wait()
		archive := archiveOf(t, juliet, room)
		for nick := range occupants {
			checkStamped(t, "as "+nick+" saw it", got[nick], archive)
			if sent := withName(bodies(archive), nick); !slices.Equal(sent, numbered(nick, each)) {
				t.Errorf("of %s are archived: %q", nick, sent)
			}
		}
	})
}

// withName are the bodies that numbered made with a name.
func withName(all []string, name string) (some []string) {
	for _, b := range all {
		if strings.HasPrefix(b, name+" ") {
			some = append(some, b)
		}
	}
	return some
}

// TestRoomWithoutArchive: what is said while a room's owner has its archive turned
// off is not archived, and the room does not announce one. ejabberd's rooms give
// ids of their own then, or don't, according to the version.
func TestRoomWithoutArchive(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		juliet := s.newcomer(t, "juliet", "balcony")
		room := userOf(juliet) + "@" + s.RoomsHost
		field := map[string]string{"prosody": "muc#roomconfig_enablearchiving", "ejabberd": "muc#roomconfig_mam"}[k.name]
		var want []received
		for i, on := range []string{"1", "0", "1"} {
			if i == 0 {
				if err := juliet.NewRoom(room, "juliet", field+"="+on); err != nil {
					t.Fatal(err)
				}
			} else if err := juliet.Configure(room, field+"="+on); err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(features(t, juliet, room), "urn:xmpp:mam:2"); got != (on == "1") {
				t.Errorf("with the archive at %s the room announces one: %t", on, got)
			}
			send(t, juliet, strings.ReplaceAll(chat(room, fmt.Sprint("time ", i), 3), "'chat'", "'groupchat'"))
			if got := receive(t, juliet, room, 3); on == "1" {
				want = append(want, got...)
			}
		}
		checkStamped(t, "with the archive turned on", want, archiveOf(t, juliet, room))
	})
}
