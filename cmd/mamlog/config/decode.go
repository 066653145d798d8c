package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Parse reads a configuration from b. file is what errors call it. What is
// wrong is an Errors.
func Parse(file string, b []byte) (*Config, error) {
	d := &decoder{file: file, config: defaults(file), base: defaultHost()}
	if root := d.document(b); root != nil && root.Kind != yaml.MappingNode {
		d.fail(root, "", "this is %s; allowed is a mapping of options to values", describe(root))
	} else if root != nil {
		d.mapping("", root, append(d.globalOptions(), d.hostOptions(&d.base)...))
		d.finish(root)
	}
	if len(d.errs) > 0 {
		slices.SortStableFunc(d.errs, func(a, b *Error) int { return a.Line - b.Line })
		return nil, d.errs
	}
	return d.config, nil
}

// decoder walks the tree of a file and collects what is wrong with it.
type decoder struct {
	file   string
	errs   Errors
	config *Config
	base   Host // what the hosts start from

	hosts   *yaml.Node // walked last, when base is complete
	c2s     *yaml.Node
	links   *yaml.Node            // walked when the hosts are known
	listens map[string]*yaml.Node // by option
	pems    map[string]*yaml.Node // by option; other files too
	stores  []storageEntry
}

// option is a key that a mapping may have.
type option struct {
	name string
	read func(path string, n *yaml.Node)
}

func (d *decoder) fail(n *yaml.Node, path, format string, args ...any) {
	d.failLine(n.Line, path, format, args...)
}

func (d *decoder) failLine(line int, path, format string, args ...any) {
	d.errs = append(d.errs, &Error{File: d.file, Line: max(line, 1), Option: path, Text: fmt.Sprintf(format, args...)})
}

// document returns the only document's root, nil if there is nothing to read.
func (d *decoder) document(b []byte) *yaml.Node {
	// Keys that are set twice are told by mapping, with the others.
	loader, err := yaml.NewLoader(bytes.NewReader(b), yaml.WithUniqueKeys(false))
	if err != nil {
		panic("config: " + err.Error()) // the options are constant
	}
	var first, second yaml.Node
	if !d.load(loader, &first) {
		return nil
	}
	if len(first.Content) == 0 || first.Content[0].Tag == "!!null" {
		d.failLine(1, "", "the file is empty; a configuration needs at least data_dir and hosts")
		return nil
	}
	if d.load(loader, &second) && len(second.Content) > 0 {
		d.fail(second.Content[0], "", "a second document begins here; a configuration is one document")
	}
	return first.Content[0]
}

// load reads the next document; n stays empty at the end of the file.
func (d *decoder) load(loader *yaml.Loader, n *yaml.Node) bool {
	err := loader.Load(n)
	if err == nil || err == io.EOF {
		return true
	}
	var le *yaml.LoadError
	if errors.As(err, &le) {
		d.failLine(le.Mark.Line, "", "this is not YAML: %s", le.Message)
	} else {
		d.failLine(1, "", "this is not YAML: %v", err)
	}
	return false
}

// mapping reads n, which must be a mapping, by the table of options.
func (d *decoder) mapping(path string, n *yaml.Node, options []option) {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "this is %s; allowed is a mapping of options to values", describe(n))
		return
	}
	names := make([]string, len(options))
	for i, o := range options {
		names[i] = o.name
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		j := slices.Index(names, key.Value)
		switch line, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			d.fail(key, path, "a key is %s; allowed is the name of an option", describe(key))
		case twice:
			d.fail(key, at, "it is set a second time; the first is in line %d", line)
		case j < 0:
			d.fail(key, path, "%s", unknown(key.Value, names))
		default:
			options[j].read(at, target(value))
		}
		seen[key.Value] = key.Line
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// target is what an alias stands for.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			return "an empty list"
		}
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the boolean " + n.Value
	}
	return fmt.Sprintf("%q", n.Value)
}

// text reads a string that isn't empty.
func (d *decoder) text(to *string, what string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || n.Value == "" {
			d.fail(n, path, "this is %s; allowed is %s", describe(n), what)
			return
		}
		*to = n.Value
	}
}

// isText tells whether n is a string: a name that looks like a number or like
// nothing has to be quoted.
func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && !slices.Contains([]string{"!!null", "!!bool", "!!int", "!!float"}, n.Tag)
}

// oneOf reads one of some words.
func (d *decoder) oneOf(set func(string), allowed ...string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || !slices.Contains(allowed, n.Value) {
			d.fail(n, path, "this is %s; allowed is %s", describe(n), alternatives(allowed))
			return
		}
		set(n.Value)
	}
}

func (d *decoder) boolean(to *bool) func(string, *yaml.Node) {
	return d.oneOf(func(s string) { *to = s == "true" }, "true", "false")
}

// alternatives joins words as in "a, b or c".
func alternatives(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// finish reads what depends on the rest, and checks what must fit together.
func (d *decoder) finish(root *yaml.Node) {
	c := d.config
	if c.DataDir == "" && !d.failed("data_dir") {
		d.fail(root, "data_dir", "it is missing; it names the directory that the stores are kept in")
	}
	if d.hosts == nil {
		if !d.failed("hosts") {
			d.fail(root, "hosts", "it is missing; allowed is a list of domains, as in [test.example]")
		}
	} else {
		d.readHosts(d.hosts)
	}
	d.checkStorage()
	if d.links != nil {
		d.readLinks(d.links)
	}
	d.checkListeners()
	d.checkPEMs()
	if c.AdminSocket == "" {
		c.AdminSocket = filepath.Join(c.DataDir, "admin.sock")
	}
}

// failed tells whether something was already said about the option.
func (d *decoder) failed(path string) bool {
	return slices.ContainsFunc(d.errs, func(e *Error) bool {
		return e.Option == path || strings.HasPrefix(e.Option, path+".") || strings.HasPrefix(e.Option, path+"[")
	})
}
