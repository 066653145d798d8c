package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// conversation is more than a page of the admin API, with everything that a
// terminal must not be told.
func conversation() (m [][3]string) {
	const juliet, romeo, nurse = "juliet@test.example/phone", "romeo@test.example/orchard", "nurse@test.example/house"
	for i := range 250 {
		m = append(m, [3]string{juliet, romeo, fmt.Sprintf("line %d", i)})
	}
	return append(m,
		[3]string{romeo, juliet, "\n\nShall I hear more,\nor shall I speak at this?"},
		[3]string{nurse, juliet, "red \u009b31m <b> & \u202egnirts"},
		[3]string{juliet, "juliet@test.example", "note to self"})
}

func (r *result) messages() (m []jsonMessage) {
	r.t.Helper()
	for line := range strings.Lines(r.out) {
		var j jsonMessage
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		m = append(m, j)
	}
	return m
}

func bodies(m []jsonMessage) (b []string) {
	for _, j := range m {
		b = append(b, j.Body)
	}
	return b
}

func TestQuery(t *testing.T) {
	sent := conversation()
	var want []string
	for _, m := range sent {
		want = append(want, m[2])
	}
	s := newSite(t, "")
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	s.record(sent...)
	const juliet = "juliet@test.example"

	var all []jsonMessage
	for _, beside := range []bool{false, true} {
		t.Run(map[bool]string{false: "stopped", true: "running"}[beside], func(t *testing.T) {
			s := &site{t, s.dir, s.config, s.data}
			if beside {
				s.serve()
			}
			query := func(args ...string) []jsonMessage {
				t.Helper()
				return s.run("", append([]string{"query", juliet, "--json"}, args...)...).want(0).messages()
			}
			all = query()
			if got := bodies(all); !slices.Equal(got, want) {
				t.Fatalf("got %d messages %q, want %d %q", len(got), got, len(want), want)
			}
			for i, m := range all {
				if _, err := time.Parse("2006-01-02T15:04:05.000Z", m.Stamp); err != nil {
					t.Errorf("stamp: %v", err)
				}
				if i > 0 && m.ID <= all[i-1].ID {
					t.Errorf("the id %s comes after %s", m.ID, all[i-1].ID)
				}
				if err := xml.Unmarshal([]byte(m.Stanza), new(struct {
					XMLName xml.Name `xml:"jabber:client message"`
				})); err != nil {
					t.Errorf("stanza %s: %v", m.Stanza, err)
				}
			}
			for i, want := range map[int]string{0: "out", 250: "in", 251: "in", 252: "self"} {
				if all[i].Direction != want {
					t.Errorf("message %d has the direction %q, want %q", i, all[i].Direction, want)
				}
			}
			for _, c := range []struct {
				name     string
				args     []string
				from, to int
			}{
				{"last", []string{"--last", "3"}, 250, 253},
				{"last, more than a page", []string{"--last", "230"}, 23, 253},
				{"last, more than there is", []string{"--last", "1000"}, 0, 253},
				{"max", []string{"--max", "201"}, 0, 201},
				{"after", []string{"--after", all[249].ID}, 250, 253},
				{"before", []string{"--before", all[2].ID}, 0, 2},
				{"between, last", []string{"--after", all[9].ID, "--before", all[20].ID, "--last", "2"}, 18, 20},
				{"with", []string{"--with", "nurse@test.example"}, 251, 252},
				{"with a resource", []string{"--with", "romeo@test.example/orchard", "--last", "1"}, 250, 251},
				{"with nobody", []string{"--with", "paris@test.example"}, 0, 0},
				{"before all", []string{"--end", "2020-01-01"}, 0, 0},
				{"since", []string{"--start", "2020-01-01T00:00:00+02:00", "--max", "1"}, 0, 1},
				{"after all", []string{"--start", "2999-01-01"}, 0, 0},
			} {
				if got := query(c.args...); !slices.Equal(bodies(got), want[c.from:c.to]) {
					t.Errorf("%s: got %q, want %q", c.name, bodies(got), want[c.from:c.to])
				}
			}
			s.run("", "query", juliet, "--after", "01ARZ3NDEKTSV4RRFFQ69G5FAV").want(1, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
			s.run("", "query", juliet, "--after", "nonsense").want(2, "nonsense", "archive id")
			s.run("", "query", juliet, "--with", "@").want(2, "not a JID")
			s.run("", "query", juliet, "--start", "yesterday").want(2, "RFC 3339")
			s.run("", "query", juliet, "--last", "1", "--max", "1").want(2)
			s.run("", "query", juliet, "--json", "--xml").want(2)
			s.run("", "query", "paris@test.example").want(4, "there is no user paris@test.example")
			s.run("", "query", juliet, "--with", "paris@test.example").want(0, "no messages")
		})
	}
}

func TestQueryFormats(t *testing.T) {
	s := newSite(t, "")
	s.record(conversation()...)

	table := s.run("", "query", "juliet@test.example", "--last", "4").want(0)
	lines := strings.Split(strings.TrimSuffix(table.out, "\n"), "\n")
	if len(lines) != 5 {
		t.Fatalf("got %d lines, want a heading and 4:\n%s", len(lines), table.out)
	}
	for i, want := range []string{
		"MESSAGE",
		"  ->  romeo@test.example/orchard  line 249",
		"  <-  romeo@test.example/orchard  Shall I hear more, …",
		"  <-  nurse@test.example/house    red \ufffd31m <b> & \ufffdgnirts",
		"  <>  juliet@test.example",
	} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %q, want %q in it", i, lines[i], want)
		}
	}

	x := s.run("", "query", "juliet@test.example", "--xml").want(0)
	var doc struct {
		XMLName xml.Name `xml:"archive"`
		Results []struct {
			XMLName xml.Name `xml:"urn:xmpp:mam:2 result"`
			ID      string   `xml:"id,attr"`
			Delay   struct {
				Stamp string `xml:"stamp,attr"`
			} `xml:"forwarded>delay"`
			Body string `xml:"forwarded>message>body"`
		} `xml:"result"`
	}
	if err := xml.Unmarshal([]byte(x.out), &doc); err != nil {
		t.Fatalf("%v in\n%s", err, x.out)
	}
	if len(doc.Results) != 253 || doc.Results[251].Body != "red \u009b31m <b> & \u202egnirts" || doc.Results[0].ID == "" || doc.Results[0].Delay.Stamp == "" {
		t.Errorf("got %d results, the last but one %+v", len(doc.Results), doc.Results[max(0, len(doc.Results)-2)])
	}
	empty := s.run("", "query", "juliet@test.example", "--xml", "--end", "2020-01-01").want(0)
	if err := xml.Unmarshal([]byte(empty.out), &doc); err != nil {
		t.Errorf("an empty result is not XML: %v\n%s", err, empty.out)
	}
	j := s.run("", "query", "juliet@test.example", "--json", "--last", "2").want(0)
	for name, out := range map[string]string{"table": table.out, "xml": x.out, "json": j.out} {
		if strings.ContainsFunc(strings.ReplaceAll(out, "\n", ""), obeyed) {
			t.Errorf("%s: a terminal would obey something in %q", name, out)
		}
	}
	if got := j.messages()[0].Body; got != "red \u009b31m <b> & \u202egnirts" {
		t.Errorf("JSON has the body %q", got)
	}
}
