package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	parse := func() (*Config, error) {
		return Parse("f", []byte("data_dir: data\nhosts: [one.example]\nlinks:\n"+
			"  - {server: \"127.0.0.1:5347\", domain: archive.one.example, secret_file: "+file+", hosts: [one.example]}\n"))
	}
	refused := func(words string) {
		t.Helper()
		if _, err := parse(); err == nil || !strings.Contains(err.Error(), "f:4: links[0].secret_file: "+words) {
			t.Errorf("got %v, want %q", err, words)
		}
	}
	refused("there is no file " + file)
	if err := os.WriteFile(file, []byte("se cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parse()
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := c.Links[0].ReadSecret(); err != nil || string(secret) != "se cret" {
		t.Errorf("the secret is %q, %v", secret, err)
	}
	if text := c.Format(); strings.Contains(text, "se cret") || !strings.Contains(text, "secret_file: "+file) {
		t.Errorf("it is formatted as\n%s", text)
	}
	for mode, words := range map[os.FileMode]string{0o640: "others can open", 0o604: "others can open"} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		refused(words)
		if _, err := c.Links[0].ReadSecret(); err == nil {
			t.Errorf("a file of mode %v is read", mode)
		}
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Links[0].ReadSecret(); err == nil || !strings.Contains(err.Error(), "no secret in") {
		t.Errorf("an empty file: %v", err)
	}
	file = filepath.Dir(file)
	refused(file + " is a directory")
}

func TestLocalHosts(t *testing.T) {
	c, err := Parse("f", []byte(`
data_dir: data
hosts: [one.example, two.example]
links: [{server: "127.0.0.1:5347", domain: archive.one.example, secret: s, hosts: [one.example]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.LocalHosts(); len(got) != 1 || got[0] != "two.example" {
		t.Errorf("local are %v", got)
	}
	if l := c.LinkOf("one.example"); l == nil || l.Domain != "archive.one.example" || c.LinkOf("two.example") != nil {
		t.Errorf("got %v, %v", l, c.LinkOf("two.example"))
	}
	if c.C2S.Listen != "" {
		t.Errorf("the embedded host listens on %s", c.C2S.Listen)
	}
}
