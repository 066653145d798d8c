package conformance

import (
	"encoding/xml"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// Vars holds what a transcript has captured so far, by name.
type Vars map[string]string

var (
	capture = regexp.MustCompile(`\{\{([A-Za-z_][A-Za-z0-9_.-]*)\}\}`)
	whole   = regexp.MustCompile(`^\{\{([A-Za-z_][A-Za-z0-9_.-]*)\}\}$`)
)

// Expand replaces each {{name}} in s by its value, and fails on a name that
// nothing has bound.
func (v Vars) Expand(s string) (string, error) {
	var missing string
	out := capture.ReplaceAllStringFunc(s, func(m string) string {
		name := capture.FindStringSubmatch(m)[1]
		val, ok := v[name]
		if !ok {
			missing = name
		}
		return val
	})
	if missing != "" {
		return "", fmt.Errorf("{{%s}} is not bound yet", missing)
	}
	return out, nil
}

// Match compares got with a pattern and returns what differs, one line a
// difference, each with the path to it; none means that they match, and only
// then are captures bound in v.
//
// Names and namespaces must be equal; so must attributes, in any order, except
// that xml:lang is looked at only where the pattern has it. Children may come
// in any order, each pattern child standing for one child of got, and none may
// be left over unless the pattern's own text is "...". A pattern child with the
// attribute maybe='yes' may be missing, one with absent='yes' must be (which
// says something where the content is open), and <any/> is any one element.
// Text is compared as it stands, or trimmed where there are children beside it.
//
// In an attribute's value or in text: * is anything, "a | b" is either, {{x}} binds x on first
// use and equals it later, {{x}} within a longer value must be bound. A value
// that begins with ? may be absent: from='?romeo@test.example', complete='?false',
// and '?*' is "whatever".
func Match(pattern, got *Element, v Vars) []string {
	bound := maps.Clone(v)
	if bound == nil {
		bound = Vars{}
	}
	diffs := matchElement(pattern, got, bound, pattern.Name.Local)
	if len(diffs) == 0 {
		maps.Copy(v, bound)
	}
	return diffs
}

func matchElement(p, g *Element, v Vars, path string) []string {
	var diffs []string
	if p.Name == anyElement {
		return nil
	}
	if p.Name != g.Name {
		return []string{fmt.Sprintf("%s: want <%s xmlns='%s'>, got <%s xmlns='%s'>",
			path, p.Name.Local, p.Name.Space, g.Name.Local, g.Name.Space)}
	}
	for _, n := range p.attrNames() {
		if n == maybeAttr || n == absentAttr {
			continue
		}
		want := p.Attrs[n]
		have, ok := g.Attrs[n]
		optional := strings.HasPrefix(want, "?")
		if optional {
			want = want[1:]
		}
		switch {
		case !ok && optional:
		case !ok:
			diffs = append(diffs, fmt.Sprintf("%s@%s: want %q, it is missing", path, n.Local, want))
		default:
			if d := matchValue(want, have, v); d != "" {
				diffs = append(diffs, fmt.Sprintf("%s@%s: %s", path, n.Local, d))
			}
		}
	}
	for _, n := range g.attrNames() {
		if _, ok := p.Attrs[n]; !ok && n != (xml.Name{Space: nsXML, Local: "lang"}) {
			diffs = append(diffs, fmt.Sprintf("%s@%s: unexpected, with value %q", path, n.Local, g.Attrs[n]))
		}
	}

	want, have := p.Text, g.Text
	open := strings.TrimSpace(want) == "..."
	if len(p.Children) > 0 || len(g.Children) > 0 {
		want, have = strings.TrimSpace(want), strings.TrimSpace(have)
	}
	if !open {
		if d := matchValue(want, have, v); d != "" {
			diffs = append(diffs, path+": text: "+d)
		}
	}
	if len(diffs) > 0 {
		// The children may hold captures that only make sense once this
		// element fits, but a reader wants to see all that is wrong.
		return append(diffs, matchChildren(p, g, maps.Clone(v), path, open)...)
	}
	return matchChildren(p, g, v, path, open)
}

var (
	anyElement = xml.Name{Space: nsClient, Local: "any"}
	maybeAttr  = xml.Name{Local: "maybe"}
	absentAttr = xml.Name{Local: "absent"}
)

// matchChildren pairs the pattern's children with got's. It backtracks, since
// a wildcard may otherwise take the child that a stricter sibling needs.
func matchChildren(p, g *Element, v Vars, path string, open bool) []string {
	var unwanted []string
	wanted := &Element{}
	for _, pc := range p.Children {
		if _, ok := pc.Attrs[absentAttr]; !ok {
			wanted.Children = append(wanted.Children, pc)
			continue
		}
		for _, gc := range g.Children {
			if len(matchElement(pc, gc, maps.Clone(v), path)) == 0 {
				unwanted = append(unwanted, fmt.Sprintf("%s/%s: must be absent: %s", path, gc.Name.Local, oneLine(gc)))
			}
		}
	}
	return append(unwanted, matchWanted(wanted, g, v, path, open)...)
}

func matchWanted(p, g *Element, v Vars, path string, open bool) []string {
	used := make([]bool, len(g.Children))
	if pair(p, g, 0, used, v, path, open) {
		return nil
	}
	// No pairing works: explain by taking children greedily.
	var diffs []string
	for i := range used {
		used[i] = false
	}
	var unmatched []*Element
	for _, pc := range p.Children {
		found := false
		for j, gc := range g.Children {
			if used[j] {
				continue
			}
			trial := maps.Clone(v)
			if len(matchElement(pc, gc, trial, path+"/"+pc.Name.Local)) == 0 {
				used[j], found = true, true
				maps.Copy(v, trial)
				break
			}
		}
		if _, maybe := pc.Attrs[maybeAttr]; !found && !maybe {
			unmatched = append(unmatched, pc)
		}
	}
	for _, pc := range unmatched {
		// The nearest relative shows the reader what is wrong with it.
		relative := -1
		for j, gc := range g.Children {
			if !used[j] && gc.Name == pc.Name {
				relative = j
				break
			}
		}
		at := path + "/" + pc.Name.Local
		if relative < 0 {
			diffs = append(diffs, fmt.Sprintf("%s: missing: %s", at, oneLine(pc)))
			continue
		}
		used[relative] = true
		diffs = append(diffs, matchElement(pc, g.Children[relative], maps.Clone(v), at)...)
	}
	if !open {
		for j, gc := range g.Children {
			if !used[j] {
				diffs = append(diffs, fmt.Sprintf("%s/%s: unexpected: %s", path, gc.Name.Local, oneLine(gc)))
			}
		}
	}
	return diffs
}

func pair(p, g *Element, i int, used []bool, v Vars, path string, open bool) bool {
	if i == len(p.Children) {
		for _, u := range used {
			if !u && !open {
				return false
			}
		}
		return true
	}
	for j, gc := range g.Children {
		if used[j] {
			continue
		}
		trial := maps.Clone(v)
		if len(matchElement(p.Children[i], gc, trial, path)) > 0 {
			continue
		}
		used[j] = true
		if pair(p, g, i+1, used, trial, path, open) {
			maps.Copy(v, trial)
			return true
		}
		used[j] = false
	}
	if _, maybe := p.Children[i].Attrs[maybeAttr]; maybe {
		return pair(p, g, i+1, used, v, path, open)
	}
	return false
}

func matchValue(want, have string, v Vars) string {
	if want == "*" {
		return ""
	}
	if alternatives := strings.Split(want, " | "); len(alternatives) > 1 {
		for _, a := range alternatives {
			if matchValue(a, have, v) == "" {
				return ""
			}
		}
		return fmt.Sprintf("want one of %q, got %q", want, have)
	}
	if m := whole.FindStringSubmatch(want); m != nil {
		val, ok := v[m[1]]
		if !ok {
			v[m[1]] = have
			return ""
		}
		if val != have {
			return fmt.Sprintf("want %q (%s), got %q", val, want, have)
		}
		return ""
	}
	exact, err := v.Expand(want)
	if err != nil {
		return err.Error()
	}
	if exact != have {
		return fmt.Sprintf("want %q, got %q", exact, have)
	}
	return ""
}

func oneLine(e *Element) string {
	fields := strings.Fields(e.String())
	return strings.ReplaceAll(strings.Join(fields, " "), "> <", "><")
}
