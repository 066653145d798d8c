package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"mamlog/cmd/mamlog/conformance"
)

// examples are the lines that the help of c and of all commands below it shows.
func examples(c *cobra.Command) (lines []string) {
	for line := range strings.Lines(c.Example) {
		lines = append(lines, strings.TrimSpace(line))
	}
	for _, sub := range c.Commands() {
		lines = append(lines, examples(sub)...)
	}
	return lines
}

// readmeLines are the commands that the README shows under a heading.
func readmeLines(t *testing.T, heading string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); strings.Contains(line, "bin/mamlog ") {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		t.Fatalf("no command is shown under %q", heading)
	}
	return lines
}

// TestExamples runs every command that the help and the README show, but those that
// serve, beside a running server: all do what they are shown for.
func TestExamples(t *testing.T) {
	const juliet, romeo = "juliet@test.example", "romeo@test.example"
	s := newSite(t, `links: [{server: "127.0.0.1:1", domain: archive.linked.example, secret: s, hosts: [linked.example]}]`+"\n")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "[test.example]", "[test.example, linked.example]", 1))
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mamlog", "bin/mamlog"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(s.dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(binary, filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.run("secret", "user", "add", romeo).want(0)
	r := s.serve()
	sender, err := conformance.Dial(t.Context(), conformance.DialOptions{
		Addr: r.ready["c2s"].(string), Domain: "test.example", User: "romeo", Password: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Drop()
	// begin makes that there is a juliet, with a message, and returns its id.
	begin := func() string {
		t.Helper()
		s.run("secret", "user", "add", juliet)
		sender.Send("<message type='chat' to='" + juliet + "'><body>hi</body></message>")
		if _, err := sender.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err != nil {
			t.Fatal(err)
		}
		all := s.run("", "query", juliet, "--json").want(0).messages()
		if len(all) == 0 {
			t.Fatal("nothing was archived")
		}
		return all[len(all)-1].ID
	}
	message := begin()
	var event struct{ ID string }
	if err := json.Unmarshal([]byte(strings.SplitN(s.run("", "audit", "--json").want(0).out, "\n", 2)[0]), &event); err != nil {
		t.Fatal(err)
	}

	lines := readmeLines(t, "Set it up")
	for _, heading := range []string{"Try it", "Answer for it", "Forget"} {
		lines = append(lines, readmeLines(t, heading)...)
	}
	var restore string
	lines = append(lines, examples(newRootCommand(&app{}))...)
	ran := 0
	bash := func(line string) {
		t.Helper()
		id := event.ID
		if strings.Contains(line, "why") {
			id = message
		}
		command := strings.NewReplacer("@localhost", "@test.example", "/var/backups", s.dir, "/etc/mamlog.yaml", s.config,
			"--config mamlog.yaml", "--config "+s.config, "01KB1Q5TZ5X7T9GJ2M6Q0V8D4R", id).Replace(line)
		command = regexp.MustCompile(`\bID\b`).ReplaceAllString(command, id)
		command = regexp.MustCompile(`--at \S+`).ReplaceAllString(command, "--at "+time.Now().UTC().Format(time.RFC3339Nano)) // before, there was nothing
		if _, err := exec.LookPath("jq"); err != nil {
			command, _, _ = strings.Cut(command, " | jq ")
		}
		c := exec.Command("bash", "-euo", "pipefail", "-c", command)
		c.Dir, c.Stdin = s.dir, strings.NewReader("secret\n")
		c.Env = append(os.Environ(), "PATH="+s.dir+":"+os.Getenv("PATH"), "MAMLOG_CONFIG="+s.config, "PASSWORD=secret")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s\n%v: %s", line, err, out)
		}
		ran++
	}
	for _, line := range lines {
		switch {
		case strings.Contains(line, "mamlog serve"):
			continue // the other tests do
		case strings.Contains(line, "mamlog restore"):
			restore = line // needs that there is no server
			continue
		case strings.Contains(line, "user add"):
			s.run("", "user", "delete", juliet)
		}
		bash(line)
		if strings.Contains(line, "mamlog erase") || strings.Contains(line, "mamlog user ") {
			message = begin()
		}
		if t.Failed() {
			return // what follows needs what went before
		}
	}
	if code := r.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if err := os.Rename(s.data, s.data+".lost"); err != nil {
		t.Fatal(err)
	}
	bash(restore)
	s.run("", "check").want(0)
	t.Logf("%d commands ran", ran)
}
