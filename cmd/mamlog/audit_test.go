package main

import (
	"encoding/json"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

func (r *result) audit() (entries []jsonAudit) {
	r.t.Helper()
	for line := range strings.Lines(r.out) {
		var e jsonAudit
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

// save writes what a command printed into a file of the site.
func (r *result) save(s *site, name string) string {
	r.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(r.out), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// TestAudit: what operators did and looked at is listed, and proved to whoever has
// the public key and nothing else.
func TestAudit(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, beside := range []bool{false, true} {
		t.Run(map[bool]string{false: "stopped", true: "running"}[beside], func(t *testing.T) {
			const juliet = "juliet@test.example"
			s := newSite(t, "")
			s.run("secret\n", "user", "add", juliet).want(0)
			s.record(conversation()...)
			if beside {
				s.serve()
			}
			old := s.run("", "audit", "checkpoint").want(0, "mamlog audit checkpoint\n", "\narchive 0 ", "\nmain ").save(s, "old.note")
			key := s.run("", "audit", "key").want(0, "mamlog/test.example+").save(s, "mamlog.pub")
			s.run("", "prefs", "set", juliet, "--default", "roster", "--never", "paris@test.example").want(0)
			message := s.run("", "query", juliet, "--last", "1", "--json").want(0).messages()[0]

			s.run("", "audit").want(0, "KIND", "operator:"+me.Username, "last=1", "default roster; always -; never paris@test.example", "made, or its password set", "audit history")
			entries := s.run("", "audit", "--owner", juliet, "--json").want(0).audit()
			var kinds []string
			for _, e := range entries {
				if kinds = append(kinds, e.Kind); e.Owner != juliet || e.Actor != "operator:"+me.Username || e.Store != "main" {
					t.Errorf("got %+v", e)
				}
			}
			if got, want := strings.Join(kinds, " "), "account read preferences read read"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if n := len(s.run("", "audit", "--owner", juliet, "--kind", "preferences,account", "--json").want(0).audit()); n != 2 {
				t.Errorf("%d preference changes and accounts, want 2", n)
			}
			if n := len(s.run("", "audit", "--actor", "nobody@test.example", "--since", "2020-01-01", "--json").want(0).audit()); n != 0 {
				t.Errorf("somebody did %d things", n)
			}
			s.run("", "audit", "--kind", "gossip").want(2, `there is no kind "gossip"`, "preferences", "expired")
			s.run("", "audit", "gossip").want(2, "unknown command")

			// Why, and what would have been.
			why := s.run("", "why", juliet, message.ID).want(0, "it has a body", "verdict  archived", "the default of the host's policy", "event    ")
			if strings.Contains(why.out+why.err, message.Body) {
				t.Errorf("why shows the message:\n%s", why.out)
			}
			s.run("", "why", juliet, message.ID, "--json").want(0, `"reason":"body"`, `"verdict":"archived"`)
			s.run("", "why", juliet, "01ARZ3NDEKTSV4RRFFQ69G5FAV").want(1, "holds no message")
			s.run("", "why", juliet, "x").want(2, "not an archive id")
			s.run("", "why", juliet).want(2, "the archive ID is missing")
			change := entries[2]
			s.run("", "policy", juliet, "paris@test.example/x").want(0, "verdict  not archived", "paris@test.example is in the list never of the user's preferences", change.ID)
			s.run("", "policy", juliet, "romeo@test.example").want(0, "verdict  not archived", "was no contact")
			s.run("", "policy", juliet, "paris@test.example", "--at", message.Stamp).want(0, "verdict  archived", "the default of the host's policy")
			s.run("", "policy", juliet, "paris@test.example", "--json").want(0, `"verdict":"not_archived","rule":"never","entry":"paris@test.example"`)
			s.run("", "policy", juliet, "paris@test.example", "--at", "2020-01-01").want(1, "nothing was in force")

			// Proofs, which are verified where there is nothing else.
			proof := s.run("", "audit", "prove", change.ID).want(0, `"event": "`, `"shown"`).save(s, "event.json")
			growth := s.run("", "audit", "prove", "--from", old).want(0).save(s, "growth.json")
			secret := s.run("", "audit", "prove", entries[0].ID).want(0, `"event": "`)
			if strings.Contains(secret.out, "storedKey") || strings.Contains(secret.out, `"personal"`) {
				t.Errorf("the proof shows what verifies a password:\n%s", secret.out)
			}
			account := secret.save(s, "account.json")
			elsewhere := t.TempDir()
			verify := func(files ...string) *result {
				return run(t, elsewhere, "", append([]string{"audit", "verify", "--key", key}, files...)...)
			}
			verify(proof).want(0, change.ID, "preferences of "+juliet+" by operator:"+me.Username+": operator: default roster; always -; never paris@test.example")
			verify(account).want(0, "account of "+juliet, "made, or its password set", "withheld")
			verify(old).want(0, "the history signed at")
			verify(old, growth).want(0, "has only grown")
			verify(old, proof).want(5, "nothing here shows")
			forged := func(name, file, from, to string) string {
				b, err := os.ReadFile(file)
				if err != nil || !strings.Contains(string(b), from) {
					t.Fatalf("%s: no %q in it, %v", file, from, err)
				}
				return (&result{t: t, out: strings.ReplaceAll(string(b), from, to)}).save(s, name)
			}
			verify(forged("f1", proof, change.ID, entries[1].ID)).want(5, "not in the history")
			verify(forged("f2", old, "\nmain ", "\nmain 1")).want(5, "signature")
			verify(forged("f3", growth, `"main": [`, `"main": ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",`)).want(5, "was changed")
			verify(key).want(5)
			other := newSite(t, "")
			other.run("x\n", "user", "add", juliet).want(0)
			foreign := other.run("", "audit", "key").want(0).save(s, "other.pub")
			run(t, elsewhere, "", "audit", "verify", "--key", foreign, old).want(5, "not signed with the key")
			run(t, elsewhere, "", "audit", "verify", "--key", old, old).want(1, "not a public key")
			run(t, elsewhere, "", "audit", "verify", old).want(2, "--key is missing")
			s.run("", "audit", "prove").want(2, "either the ID of an event or --from")
			s.run("", "audit", "prove", "--from", other.run("", "audit", "checkpoint").want(0).save(s, "foreign.note")).want(2, "not signed with the key")

			if info, err := os.Stat(filepath.Join(s.data, "audit", "key")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the key: %v, %v", info.Mode(), err)
			}
			s.run("", "check").want(0, "archive: ok", "main: ok")
		})
	}
}

// TestServerKeepsCheckpoints: one when it starts and one when it stops, if something
// happened.
func TestServerKeepsCheckpoints(t *testing.T) {
	s := newSite(t, "")
	notes := func() (names []string) {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(s.data, "audit", "*.note"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	r := s.serve()
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	r.stop(syscall.SIGTERM)
	first := notes()
	if len(first) < 1 || len(first) > 2 { // the one of the start may be after the user
		t.Fatalf("after a start and a stop there is %q", first)
	}
	s.serve().stop(syscall.SIGTERM)
	if again := notes(); !slices.Equal(again, first) {
		t.Errorf("nothing happened, and there is %q besides %q", again, first)
	}
}

// TestTampering changes the log behind mamlog's back, in every way that there is, and
// wants it found: at once, and also once somebody has rebuilt the rows to hide it.
func TestTampering(t *testing.T) {
	const juliet = "juliet@test.example"
	for name, tamper := range map[string]func(t *testing.T, db *pebble.DB, all [][2][]byte, n int){
		"one byte of one old preference change": func(t *testing.T, db *pebble.DB, all [][2][]byte, n int) {
			set(t, db, all[n][0], changed(t, all[n][1], "operator:", "operator;"))
		},
		"a record removed": func(t *testing.T, db *pebble.DB, all [][2][]byte, n int) {
			if err := db.Delete(all[n][0], pebble.Sync); err != nil {
				t.Fatal(err)
			}
		},
		"two swapped": func(t *testing.T, db *pebble.DB, all [][2][]byte, n int) {
			set(t, db, all[n][0], all[n+1][1])
			set(t, db, all[n+1][0], all[n][1])
		},
		"one put in between": func(t *testing.T, db *pebble.DB, all [][2][]byte, n int) {
			key := slices.Clone(all[n][0])
			key[len(key)-1] ^= 1
			set(t, db, key, all[n][1])
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "")
			s.run("x\n", "user", "add", juliet).want(0)
			s.run("", "prefs", "set", juliet, "--never", "paris@test.example").want(0)
			for _, d := range []string{"never", "always", "roster"} {
				s.run("", "prefs", "set", juliet, "--default", d).want(0)
			}
			old := s.run("", "audit", "checkpoint").want(0).save(s, "old.note")
			s.run("", "check").want(0)
			s.onMainLog(func(db *pebble.DB) {
				all := auditRecords(t, db)
				n := slices.IndexFunc(all, func(r [2][]byte) bool {
					e := new(log.Event)
					return proto.Unmarshal(r[1], e) == nil && e.GetPreferences() != nil
				})
				tamper(t, db, all, n)
			})
			s.run("", "check").want(5, "archive: ok", "audit record", "don't rebuild")
			r := s.serve()
			s.run("", "check").want(5, "don't rebuild") // the same beside a server
			s.run("", "rebuild").want(0)
			s.run("", "check").want(5, ".note: the ", "audit records")
			s.run("", "audit", "prove", "--from", old).want(1, "audit records")
			if code := r.stop(syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d:\n%s", code, r.log)
			}
		})
	}
	t.Run("the newest removed", func(t *testing.T) {
		s := newSite(t, "")
		s.run("x\n", "user", "add", juliet).want(0)
		s.run("", "audit", "checkpoint").want(0)
		s.onMainLog(func(db *pebble.DB) {
			all := auditRecords(t, db)
			if err := db.Delete(all[len(all)-1][0], pebble.Sync); err != nil {
				t.Fatal(err)
			}
		})
		s.run("", "rebuild").want(0)
		s.run("", "check").want(5, "audit records, and had")
	})
	t.Run("one appended behind the end", func(t *testing.T) {
		s := newSite(t, "")
		s.run("x\n", "user", "add", juliet).want(0)
		s.onMainLog(func(db *pebble.DB) {
			all := auditRecords(t, db)
			key := slices.Clone(all[len(all)-1][0])
			key[3]++ // a later time
			set(t, db, key, all[len(all)-1][1])
		})
		s.run("", "check").want(5, "behind the end of the log")
	})
}

// TestTamperingWithPersonalContent: the lists of preferences lie apart of the records,
// so that they can be erased; they are vouched for all the same.
func TestTamperingWithPersonalContent(t *testing.T) {
	const juliet = "juliet@test.example"
	for name, c := range map[string]struct {
		tamper func(t *testing.T, db *pebble.DB, key, value []byte)
		want   string
	}{
		"one byte": {func(t *testing.T, db *pebble.DB, key, value []byte) {
			set(t, db, key, changed(t, value, "paris@", "pariz@"))
		}, "is not what it has the hash of"},
		"removed": {func(t *testing.T, db *pebble.DB, key, _ []byte) {
			if err := db.Delete(key, pebble.Sync); err != nil {
				t.Fatal(err)
			}
		}, "no erasure accounts for it"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "")
			s.run("x\n", "user", "add", juliet).want(0)
			s.run("", "prefs", "set", juliet, "--never", "paris@test.example").want(0)
			s.onMainLog(func(db *pebble.DB) {
				n := 0
				for _, r := range records(t, db, 0x11) {
					if strings.Contains(string(r[1]), "paris@") {
						c.tamper(t, db, r[0], r[1])
						n++
					}
				}
				if n != 1 {
					t.Fatalf("%d records have the list, want 1", n)
				}
			})
			s.run("", "check").want(5, c.want, "don't rebuild")
		})
	}
}

// changed is b with one byte changed: from is what stands there before, to after.
func changed(t *testing.T, b []byte, from, to string) []byte {
	t.Helper()
	out := []byte(strings.Replace(string(b), from, to, 1))
	if string(out) == string(b) || len(out) != len(b) {
		t.Fatalf("there is no %q in %q", from, b)
	}
	return out
}

func set(t *testing.T, db *pebble.DB, key, value []byte) {
	t.Helper()
	if err := db.Set(key, value, pebble.Sync); err != nil {
		t.Fatal(err)
	}
}

// onMainLog lends the engine of the main store's log, which must be closed.
func (s *site) onMainLog(do func(*pebble.DB)) {
	s.t.Helper()
	db, err := pebble.Open(filepath.Join(s.data, "main", "log"), &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: silent{}})
	if err != nil {
		s.t.Fatal(err)
	}
	do(db)
	if err := db.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// auditRecords are the records of the class Audit (log/key.go).
func auditRecords(t *testing.T, db *pebble.DB) [][2][]byte { return records(t, db, 0x10, 0, 0) }

// records are the keys that begin with prefix, with their values.
func records(t *testing.T, db *pebble.DB, prefix ...byte) (all [][2][]byte) {
	t.Helper()
	end := slices.Clone(prefix)
	end[len(end)-1]++
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: end})
	if err != nil {
		t.Fatal(err)
	}
	for it.First(); it.Valid(); it.Next() {
		all = append(all, [2][]byte{slices.Clone(it.Key()), slices.Clone(it.Value())})
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}
