package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"mamlog/log"
)

// TestErrors runs the files of testdata/errors: each is configurations with
// what is said of them. Run with -rewrite to write down what is said now.
func TestErrors(t *testing.T) {
	datadriven.Walk(t, "testdata/errors", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			c, err := Parse("mamlog.yaml", []byte(d.Input))
			if err != nil {
				return err.Error()
			}
			return "accepted\n" + c.Format()
		})
	})
}

// TestEveryOptionPerHost sets each option once for all hosts and once for one of
// them, to values that differ from each other and from the default.
func TestEveryOptionPerHost(t *testing.T) {
	c, err := Parse("mamlog.yaml", []byte(`
data_dir: data
archive_expires_after: 2m
default_archive_policy: roster
archive_cleanup_interval: 60
archive_quota_items: 1000
archive_quota_bytes: 10MiB
max_archive_query_results: 20
archive_store: archive2
dont_archive_namespaces: [urn:a]
mam_smart_enable: true
storage: {archive2: memory, fallback: memory}
hosts:
  - one.example
  - two.example:
      archive_expires_after: never
      default_archive_policy: false
      archive_cleanup_interval: 1d
      archive_quota_items: none
      archive_quota_bytes: 2000
      max_archive_query_results: 30
      archive_store: archive3
      dont_archive_namespaces: []
      mam_smart_enable: false
      storage: {archive3: pebble, fallback: none}
`))
	if err != nil {
		t.Fatal(err)
	}
	one, two := c.Host("one.example"), c.Host("two.example")
	check := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	check("one archive_expires_after", one.Archive.ExpiresAfter, 2*31*24*time.Hour)
	check("two archive_expires_after", two.Archive.ExpiresAfter, time.Duration(0))
	check("one default_archive_policy", one.Archive.DefaultPolicy, log.Default_DEFAULT_ROSTER)
	check("two default_archive_policy", two.Archive.DefaultPolicy, log.Default_DEFAULT_NEVER)
	check("one archive_cleanup_interval", one.Archive.CleanupInterval, time.Minute)
	check("two archive_cleanup_interval", two.Archive.CleanupInterval, 24*time.Hour)
	check("one archive_quota_items", one.Archive.QuotaItems, uint64(1000))
	check("two archive_quota_items", two.Archive.QuotaItems, uint64(0))
	check("one archive_quota_bytes", one.Archive.QuotaBytes, uint64(10<<20))
	check("two archive_quota_bytes", two.Archive.QuotaBytes, uint64(2000))
	check("one max_archive_query_results", one.Archive.MaxQueryResults, 20)
	check("two max_archive_query_results", two.Archive.MaxQueryResults, 30)
	check("one archive_store", one.Store, "archive2")
	check("two archive_store", two.Store, "archive3")
	check("one dont_archive_namespaces", one.Archive.DontArchiveNamespaces, []string{"urn:a"})
	check("two dont_archive_namespaces", len(two.Archive.DontArchiveNamespaces), 0)
	check("one mam_smart_enable", one.Archive.SmartEnable, true)
	check("two mam_smart_enable", two.Archive.SmartEnable, false)
	check("one storage", one.Backend(), Memory)
	check("two storage", two.Backend(), Pebble)
	check("stores", c.Stores(), []Store{
		{Name: "archive2", Dir: filepath.Join("data", "stores", "archive2"), Backend: Memory, Fallback: true, Hosts: []string{"one.example"}},
		{Name: "archive3", Dir: filepath.Join("data", "stores", "archive3"), Backend: Pebble, Fallback: false, Hosts: []string{"two.example"}},
	})

	// What Format writes says the same.
	again, err := Parse("mamlog.yaml", []byte(c.Format()))
	if err != nil {
		t.Fatalf("the formatted configuration is refused: %v\n%s", err, c.Format())
	}
	if c.Format() != again.Format() || !reflect.DeepEqual(c.Stores(), again.Stores()) {
		t.Errorf("the formatted configuration differs:\n%s\nfrom\n%s", again.Format(), c.Format())
	}
}

// TestDefaults are mod_mam's.
func TestDefaults(t *testing.T) {
	c, err := Parse("f", []byte("data_dir: data\nhosts: [test.example]\n"))
	if err != nil {
		t.Fatal(err)
	}
	h := c.Hosts[0]
	if h.Archive.ExpiresAfter != 7*24*time.Hour || h.Archive.DefaultPolicy != log.Default_DEFAULT_ALWAYS ||
		h.Archive.CleanupInterval != 4*60*60*time.Second || h.Archive.MaxQueryResults != 50 || h.Archive.SmartEnable ||
		h.Store != "archive" || h.Backend() != Pebble || h.Fallback ||
		!reflect.DeepEqual(h.Archive.DontArchiveNamespaces, []string{"http://jabber.org/protocol/chatstates"}) {
		t.Errorf("got %+v", h)
	}
	if c.AdminSocket != filepath.Join("data", "admin.sock") || !Loopback(c.C2S.Listen) || c.MetricsListen != "" {
		t.Errorf("got %+v", c)
	}
}

func TestSharedNameWithTwoBackends(t *testing.T) {
	c, err := Parse("f", []byte(`
data_dir: data
hosts:
  - a.example
  - b.example: {storage: {archive: memory}}
  - c.example: {storage: {fallback: memory}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Store{
		{Name: "archive", Dir: "data/stores/archive", Backend: Pebble, Hosts: []string{"a.example", "c.example"}},
		{Name: "archive (memory)", Dir: "data/stores/archive", Backend: Memory, Hosts: []string{"b.example"}},
	}
	if got := c.Stores(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"1": time.Second, "3600": time.Hour, "1d": 24 * time.Hour, "1w": 168 * time.Hour,
		"2m": 62 * 24 * time.Hour, "1y": 31556952 * time.Second, "292y": 292 * 31556952 * time.Second,
	} {
		got, err := ParseDuration(s)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", s, got, err, want)
		}
		back, err := ParseDuration(FormatDuration(want))
		if err != nil || back != want {
			t.Errorf("%s is written as %s, which is %v, %v", s, FormatDuration(want), back, err)
		}
	}
	for _, s := range []string{"", "d", "0", "0w", "-1", "1h", "1.5d", "1 d", "293y", "9223372036854775807", "99999999999999999999", "0x10", "1_000"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("%q is accepted as %v", s, d)
		}
	}
}

func TestLoadMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "absent.yaml"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("got %v", err)
	}
}

// FuzzParse: whatever the file holds, it is accepted or refused with a line.
func FuzzParse(f *testing.F) {
	f.Add("data_dir: data\nhosts: [test.example]\n")
	f.Add("hosts:\n  - a: {storage: {archive: memory}}\n  - &x b\n  - *x\n")
	f.Add("{? [a]: b, <<: *c}")
	f.Add("data_dir: d\nhosts: [a]\nlinks: [{server: \"[::1]:1\", domain: b, secret: c, hosts: [a], tls: true, server_name: x}]\n")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse("f", []byte(s))
		if err == nil {
			if _, err := Parse("f", []byte(c.Format())); err != nil {
				t.Fatalf("accepted, but not as it is formatted: %v\n%s", err, c.Format())
			}
			return
		}
		errs, ok := err.(Errors)
		if !ok || len(errs) == 0 {
			t.Fatalf("got %T %v", err, err)
		}
		for _, e := range errs {
			if e.Line < 1 || e.Text == "" {
				t.Errorf("got %+v", e)
			}
		}
	})
}
