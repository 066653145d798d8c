package component

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/xep0313/stanza"
)

const (
	schema   = "../../docs/attach-protocol.xsd"
	document = "../../docs/attach-protocol.md"
)

// violations are what xmllint says of elements that don't fit the schema, by
// element.
func violations(t *testing.T, elements map[string][]byte) map[string]string {
	t.Helper()
	conformance.NeedDebian(t, "libxml2-utils")
	dir := t.TempDir()
	args := []string{"--noout", "--schema", schema}
	names := make(map[string]string)
	for name, b := range elements {
		file := filepath.Join(dir, fmt.Sprint(len(names), ".xml"))
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		names[file] = name
		args = append(args, file)
	}
	out, _ := exec.Command("xmllint", args...).CombinedOutput() // fails if anything doesn't fit
	bad := make(map[string]string)
	judged := 0
	for line := range strings.Lines(string(out)) {
		if file, ok := strings.CutSuffix(strings.TrimSpace(line), " validates"); ok && names[file] != "" {
			judged++
			continue
		}
		if file, ok := strings.CutSuffix(strings.TrimSpace(line), " fails to validate"); ok && names[file] != "" {
			judged++
			bad[names[file]] += " " // also if it says nothing else
			continue
		}
		for file, name := range names {
			if strings.HasPrefix(line, file+":") {
				bad[name] += strings.TrimPrefix(line, file)
			}
		}
	}
	if judged != len(elements) {
		t.Fatalf("xmllint judges %d of %d elements:\n%s", judged, len(elements), out)
	}
	return bad
}

// payloads are the elements of the protocol in iqs, by what they are called here.
func payloads(t *testing.T, name string, iqs ...*stanza.Element) map[string][]byte {
	t.Helper()
	found := make(map[string][]byte)
	for _, iq := range iqs {
		if p := iq.First(); p != nil && p.Space == NS {
			found[fmt.Sprintf("%s: %s %d", name, p.Local, len(found))] = p.Bytes()
		}
	}
	return found
}

func checkSchema(t *testing.T, elements map[string][]byte, kinds ...string) {
	t.Helper()
	for _, k := range kinds {
		seen := false
		for _, b := range elements {
			seen = seen || bytes.HasPrefix(b, []byte("<"+k+" "))
		}
		if !seen {
			t.Errorf("there is no <%s/>", k)
		}
	}
	for name, fault := range violations(t, elements) {
		t.Errorf("%s does not fit the schema: %s\n%s", name, fault, elements[name])
	}
}

var everyKind = []string{"hello", "welcome", "batch", "archived", "query", "page", "delete"}

// TestExamplesFitTheSchema: those of the document.
func TestExamplesFitTheSchema(t *testing.T) {
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var iqs []*stanza.Element
	for i, block := range strings.Split(string(b), "```") {
		example, ok := strings.CutPrefix(block, "xml\n")
		if i%2 == 0 || !ok {
			continue
		}
		example = strings.ReplaceAll(example, "\n    ...\n", "\n") // and so on
		r := stanza.NewReader(bytes.NewBufferString(example), map[string]string{"": nsAccept}, stanza.DefaultLimits)
		for {
			e, err := r.Next()
			if err != nil {
				if err.Error() != "EOF" {
					t.Errorf("%v in the example\n%s", err, example)
				}
				break
			}
			iqs = append(iqs, e)
		}
	}
	checkSchema(t, payloads(t, "example", iqs...), "hello", "welcome", "batch", "archived", "query", "page")
}

// TestTrafficFitsTheSchema: what stock servers with the modules and mamlog said to
// each other, a stanza a line.
func TestTrafficFitsTheSchema(t *testing.T) {
	files, err := filepath.Glob("testdata/traffic/*")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var iqs []*stanza.Element
			for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
				e, err := stanza.Parse(lines.Bytes())
				if err != nil {
					t.Fatalf("%v in %s", err, lines.Bytes())
				}
				iqs = append(iqs, e)
			}
			checkSchema(t, payloads(t, "recorded", iqs...), everyKind...)
		})
	}
}

// TestAnswersFitTheSchema: everything that mamlog says.
func TestAnswersFitTheSchema(t *testing.T) {
	f := start(t, nil)
	f.archive.Archive = failing{f.archive.Archive}
	p := f.server.accept()
	checkSchema(t, payloads(t, "answer",
		p.hello(testHost, "accounts"),
		p.hello(testRooms, "rooms"),
		p.ask("set", testHost, testDomain, batch(
			appendOf("out", "alice@example.org", "bob@example.org", "1", "x"),
			appendOf("out", "alice@example.org", "bob@example.org", "2", "x"),
			`<append dir='out' owner='alice@example.org' peer='bob@example.org' key='3'><message xmlns='jabber:client'/></append>`,
			appendOf("out", "alice@example.org", "bob@example.org", "4", "x"), "<append/>", "<append owner='@'/>")),
		p.ask("get", testHost, testDomain, query("alice@example.org", "alice@example.org/x", everything)),
		p.ask("get", testRooms, testDomain, query("den@rooms.example.org", "alice@example.org/x", everything)),
	), "welcome", "archived", "page")
}

// TestSchemaRefuses what is wrong: one that takes everything would test nothing.
func TestSchemaRefuses(t *testing.T) {
	const ns = ` xmlns='` + NS + `'`
	const good = `dir='out' owner='a@b' peer='c' key='k'`
	elements := make(map[string][]byte)
	for _, xml := range []string{
		`<other` + ns + `/>`, `<hello` + ns + `/>`, `<hello` + ns + ` versions='' serves='rooms'/>`, `<hello` + ns + ` versions='1' serves='all'/>`,
		`<hello` + ns + ` versions='1' serves='rooms' spool='-1'/>`, `<hello` + ns + ` versions='1' serves='rooms'>text</hello>`,
		`<welcome` + ns + ` version='1'/>`, `<welcome` + ns + ` version='1' max-batch='1' max-bytes='1' window='1'><feature/></welcome>`,
		`<batch` + ns + `/>`, `<batch` + ns + `><other/></batch>`, `<batch` + ns + `><append ` + good + ` ref='0'/></batch>`,
		`<append` + ns + ` ` + good + ` stamp='now'/>`, `<append` + ns + ` ` + good + ` contact='maybe'/>`, `<append` + ns + ` ` + good + `><message/></append>`,
		`<append` + ns + ` dir='up' owner='a@b' peer='c' key='k'/>`, `<append` + ns + ` dir='out' owner='b' peer='c' key='k'/>`,
		`<append` + ns + ` dir='out' owner='a@b/c' peer='c' key='k'/>`, `<append` + ns + ` dir='out' owner='a@b' peer='c' key=''/>`,
		`<archived` + ns + `/>`, `<archived` + ns + `>!</archived>`, `<archived` + ns + `>01 a!b</archived>`, `<archived` + ns + `>x<y/></archived>`,
		`<query` + ns + ` owner='a@b' asker='a@b/c'/>`, `<query` + ns + ` owner='a@b' asker='a@b/c' real-jids='some'><iq xmlns='jabber:client'/></query>`,
		`<page` + ns + `>x</page>`, `<page` + ns + ` stanzas='0'>x</page>`, `<page` + ns + ` stanzas='1'><x/></page>`, `<delete` + ns + `/>`,
	} {
		elements[xml] = []byte(xml)
	}
	bad := violations(t, elements)
	for xml := range elements {
		if bad[xml] == "" {
			t.Errorf("the schema takes %s", xml)
		}
	}
	// And takes what is to be ignored.
	if bad := violations(t, map[string][]byte{"later": []byte(`<hello` + ns + ` versions='1 2' serves='rooms' xmlns:l='urn:later' l:more='x'><l:x/></hello>`)}); len(bad) > 0 {
		t.Errorf("it refuses an extension: %v", bad)
	}
}
