package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// event is one line of what a Python client reports.
type event struct {
	Event     string      `json:"event"`
	Client    string      `json:"client"`
	Kind      string      `json:"kind"`
	TLS       any         `json:"tls"`
	IDs       []string    `json:"ids"`
	Body      string      `json:"body"`
	Direction string      `json:"direction"`
	Items     [][2]string `json:"items"` // id and body
	Count     *int        `json:"count"`
	Default   string      `json:"default"`
	Always    []string    `json:"always"`
	Never     []string    `json:"never"`
	Features  []string    `json:"features"`
	Fields    []string    `json:"fields"`
	Start     string      `json:"start"`
	End       string      `json:"end"`
}

// runPython runs a script of testdata with Debian's Python, for which the
// Debian packages are, and returns what it reported.
func runPython(t *testing.T, s *Server, script string, args ...string) []event {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	// Longer than the whole package should take: it only ends a hanging client.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", append([]string{filepath.Join("testdata", script), host, port, Domain}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var events []event
	for line := range strings.Lines(stdout.String()) {
		var e event
		if jerr := json.Unmarshal([]byte(line), &e); jerr != nil {
			t.Errorf("%s printed what is no report: %s", script, line)
			continue
		}
		events = append(events, e)
	}
	if err != nil || len(events) == 0 || events[len(events)-1].Event != "done" {
		t.Fatalf("%s did not finish: %v\nits last words:\n%s\n%s", script, err,
			tail(stderr.String(), 40), tail(stdout.String(), 5))
	}
	return events
}

// pick returns the events of a kind, of a client where one is named.
func pick(events []event, name, client string) []event {
	return slices.DeleteFunc(slices.Clone(events), func(e event) bool {
		return e.Event != name || (client != "" && e.Client != client)
	})
}

func addUsers(t *testing.T, s *Server, users ...string) {
	t.Helper()
	for _, u := range users {
		if err := s.AddUser(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
}

// checkWalk compares one walk through an archive with what it must give: the
// bodies in order, and the ids where they are known.
func checkWalk(t *testing.T, what string, items [][2]string, bodies, ids []string) {
	t.Helper()
	if len(items) != len(bodies) {
		t.Errorf("%s: %d messages, want %d", what, len(items), len(bodies))
	}
	seen := map[string]bool{}
	for i, item := range items {
		if i >= len(bodies) {
			break
		}
		if seen[item[0]] {
			t.Fatalf("%s: message %d: id %s came twice", what, i, item[0])
		}
		seen[item[0]] = true
		if item[1] != bodies[i] {
			t.Fatalf("%s: message %d: body %q, want %q", what, i, item[1], bodies[i])
		}
		if ids != nil && ids[i] != item[0] {
			t.Fatalf("%s: message %d: id %s, live it had %s", what, i, item[0], ids[i])
		}
	}
}

// roundtripMessages is how many each foreign client pages through.
const roundtripMessages = 1000

// checkRoundtrip judges what slixmpp and nbxmpp both report: romeo sent so many
// messages, juliet saw each live and paged through them in several ways.
func checkRoundtrip(t *testing.T, events []event, juliet, romeo string) {
	t.Helper()
	for _, e := range pick(events, "login", "") {
		if tls := fmt.Sprint(e.TLS); tls == "false" || tls == "None" {
			t.Errorf("%s logged in without TLS", e.Client)
		}
	}
	var bodies, ids []string
	for i, e := range pick(events, "live", "juliet") {
		if len(e.IDs) != 1 {
			t.Fatalf("live message %d has %d ids by juliet's archive, want 1", i, len(e.IDs))
		}
		bodies, ids = append(bodies, e.Body), append(ids, e.IDs[0])
	}
	for i := range roundtripMessages {
		if want := fmt.Sprintf("message %d", i+1); i >= len(bodies) || bodies[i] != want {
			t.Fatalf("live message %d is not %q", i, want)
		}
	}
	walks := 0
	for _, e := range pick(events, "walk", "") {
		walks++
		if e.Client == "juliet" {
			checkWalk(t, "juliet, "+e.Direction, e.Items, bodies, ids)
		} else {
			checkWalk(t, "romeo, "+e.Direction, e.Items, bodies, nil)
		}
		if e.Count != nil && *e.Count != roundtripMessages {
			t.Errorf("%s, %s: count is %d, want %d", e.Client, e.Direction, *e.Count, roundtripMessages)
		}
	}
	if walks < 3 {
		t.Errorf("only %d walks through the archives", walks)
	}
	prefs := pick(events, "prefs", "")
	want := []string{
		"always [] []",
		fmt.Sprintf("roster [%s@%s] [tybalt@%s]", romeo, Domain, Domain),
		"never [] []",
	}
	for i, w := range want {
		if i >= len(prefs) {
			t.Fatalf("preferences were read %d times, want %d", len(prefs), len(want))
		}
		if got := fmt.Sprintf("%s %v %v", prefs[i].Default, prefs[i].Always, prefs[i].Never); got != w {
			t.Errorf("preferences, reading %d: %s, want %s", i+1, got, w)
		}
	}
}

func TestSlixmpp(t *testing.T) {
	t.Parallel()
	NeedDebian(t, "python3-slixmpp")
	s := startServer(t, "")
	addUsers(t, s, "juliet", "romeo")
	events := runPython(t, s, "slixmpp_roundtrip.py", "juliet", "romeo", Password, fmt.Sprint(roundtripMessages))
	checkRoundtrip(t, events, "juliet", "romeo")

	features := pick(events, "features", "")[0].Features
	for _, want := range []string{nsMAM, nsMAM + "#extended", nsSID} {
		if !slices.Contains(features, want) {
			t.Errorf("feature %s is missing in %v", want, features)
		}
	}
	fields := pick(events, "fields", "")[0].Fields
	for _, want := range []string{"with", "start", "end", "before-id", "after-id", "ids"} {
		if !slices.Contains(fields, want) {
			t.Errorf("form field %s is missing in %v", want, fields)
		}
	}
	live := pick(events, "live", "juliet")
	m := pick(events, "metadata", "")[0]
	if m.Start != live[0].IDs[0] || m.End != live[len(live)-1].IDs[0] {
		t.Errorf("metadata says %s to %s, live it was %s to %s", m.Start, m.End, live[0].IDs[0], live[len(live)-1].IDs[0])
	}
}

func TestNbxmpp(t *testing.T) {
	t.Parallel()
	NeedDebian(t, "python3-nbxmpp", "python3-gi")
	s := startServer(t, "")
	addUsers(t, s, "juliet", "romeo")
	events := runPython(t, s, "nbxmpp_roundtrip.py", "juliet", "romeo", Password, fmt.Sprint(roundtripMessages))
	checkRoundtrip(t, events, "juliet", "romeo")
}
