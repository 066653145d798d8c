package xep0313

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// query is what a client asks for.
type query struct {
	projections.Query
	id   string // queryid
	flip bool
}

func trim(s string) string { return strings.TrimSpace(s) }

// parseQuery reads a <query/> (XEP-0313 section 4). Any error is a
// *stanza.Error. max is the largest page that may be asked for.
func parseQuery(e *stanza.Element, max int, limits Limits) (q query, err error) {
	q.id = e.Attr("queryid")
	if e.Attr("node") != "" {
		return q, stanza.FeatureNotImplemented("this archive has no nodes")
	}
	q.Max = max
	var form, set, flip *stanza.Element
	for _, n := range e.Nodes {
		c := n.Element
		if c == nil {
			continue
		}
		var seen **stanza.Element
		switch {
		case c.Is(NSForm, "x"):
			seen = &form
		case c.Is(NSRSM, "set"):
			seen = &set
		case c.Is(NS, "flip-page"):
			seen = &flip
		default:
			continue
		}
		if *seen != nil {
			return q, stanza.BadRequest("there is more than one <%s/>", c.Local)
		}
		*seen = c
	}
	q.flip = flip != nil
	if form != nil {
		err = q.parseForm(form, limits)
	}
	if set != nil && err == nil {
		err = q.parseSet(set)
	}
	return q, err
}

func (q *query) parseForm(x *stanza.Element, limits Limits) error {
	if t := x.Attr("type"); t != "submit" {
		return stanza.BadRequest("the form's type is %q; it must be submit", t)
	}
	fields, texts := make([]formField, 0, 8), make([]string, 0, 8)
	for _, n := range x.Nodes {
		f := n.Element
		if !f.Is(NSForm, "field") {
			continue // <title/> and the like say nothing in a submission
		}
		if len(fields) == limits.FormFields {
			return stanza.PolicyViolation("the form has more than %d fields", limits.FormFields)
		}
		name := f.Attr("var")
		if slices.ContainsFunc(fields, func(f formField) bool { return f.name == name }) {
			return stanza.BadRequest("the form has the field %q twice", name)
		}
		from := len(texts)
		for _, n := range f.Nodes {
			if v := n.Element; v.Is(NSForm, "value") {
				if t := trim(v.Text()); t != "" {
					texts = append(texts, t)
				}
			}
		}
		fields = append(fields, formField{name, texts[from:len(texts):len(texts)]})
	}
	if !slices.ContainsFunc(fields, func(f formField) bool { return f.name == "FORM_TYPE" && len(f.values) == 1 && f.values[0] == NS }) {
		return stanza.BadRequest("the form's FORM_TYPE must be %s", NS)
	}
	for _, f := range fields {
		parse, ok := fieldParsers[f.name]
		if !ok && f.name != "FORM_TYPE" {
			return stanza.FeatureNotImplemented("the form field %q is not supported", f.name)
		}
		if len(f.values) == 0 || !ok {
			continue // left open
		}
		if len(f.values) > 1 && f.name != "ids" {
			return stanza.BadRequest("the form field %q has %d values; one is allowed", f.name, len(f.values))
		}
		if len(f.values) > limits.IDs {
			return stanza.PolicyViolation("the form field \"ids\" has %d values; %d are allowed", len(f.values), limits.IDs)
		}
		if err := parse(q, f.values); err != nil {
			return err
		}
	}
	return nil
}

// formField is one of a form's, with those of its values that aren't empty.
type formField struct {
	name   string
	values []string
}

var fieldParsers = map[string]func(q *query, values []string) error{
	"with": func(q *query, v []string) (err error) {
		if q.With, err = prepare(v[0]); err != nil {
			return stanza.JIDMalformed("%q in the form field \"with\" is not a JID", v[0])
		}
		return nil
	},
	"start": func(q *query, v []string) (err error) {
		q.Since, err = parseTime("start", v[0])
		return err
	},
	"end": func(q *query, v []string) (err error) {
		q.Until, err = parseTime("end", v[0])
		return err
	},
	"after-id": func(q *query, v []string) (err error) {
		q.After, err = parseID(v[0])
		return err
	},
	"before-id": func(q *query, v []string) (err error) {
		q.Before, err = parseID(v[0])
		return err
	},
	"ids": func(q *query, v []string) error {
		for _, s := range v {
			id, err := parseID(s)
			if err != nil {
				return err
			}
			q.IDs = append(q.IDs, id)
		}
		return nil
	},
	// No account's archive here holds groupchat messages, so there is none to leave
	// out; a room's holds no others, and does not offer the field.
	"include-groupchat": func(_ *query, v []string) error {
		switch v[0] {
		case "0", "1", "true", "false":
			return nil
		}
		return stanza.BadRequest("%q in the form field \"include-groupchat\" is not a boolean", v[0])
	},
}

// parseSet reads RSM (XEP-0059). Both bounds may be given; an empty one is none.
func (q *query) parseSet(set *stanza.Element) (err error) {
	seen := make([]string, 0, 8)
	for _, n := range set.Nodes {
		c := n.Element
		if c == nil || c.Space != NSRSM {
			continue
		}
		switch c.Local {
		case "max", "index", "after", "before":
		default:
			continue // it says nothing in a request
		}
		if slices.Contains(seen, c.Local) {
			return stanza.BadRequest("there is more than one <%s/>", c.Local)
		}
		seen = append(seen, c.Local)
		text := trim(c.Text())
		switch c.Local {
		case "max":
			n, err := strconv.ParseUint(text, 10, 31)
			if err != nil {
				return stanza.BadRequest("%q in <max/> is not a number of results", text)
			}
			q.Max = min(q.Max, int(n))
		case "index":
			n, err := strconv.ParseUint(text, 10, 31)
			if err != nil {
				return stanza.BadRequest("%q in <index/> is not a place in the results", text)
			}
			q.Index = int(n)
		case "after":
			if text != "" {
				if q.PageAfter, err = parseID(text); err != nil {
					return err
				}
			}
		case "before":
			q.Backward = true
			if text != "" {
				if q.PageBefore, err = parseID(text); err != nil {
					return err
				}
			}
		}
	}
	if slices.Contains(seen, "index") && (slices.Contains(seen, "before") || slices.Contains(seen, "after")) {
		return stanza.BadRequest("<index/> can't be combined with <before/> or <after/>")
	}
	return nil
}

// parseID reads an id that the archive gave out. To a client ids are opaque, so
// one that can't be ours is one that we do not hold.
func parseID(s string) (ulid.ULID, error) {
	id, err := ulid.ParseStrict(s)
	if err != nil || id == (ulid.ULID{}) || id.String() != s {
		return ulid.ULID{}, stanza.ItemNotFound("there is no message %q in the archive", s)
	}
	return id, nil
}

// The DateTime profile of XEP-0082 section 3.2, which is stricter than Go.
var dateTime = regexp.MustCompile(`^-?\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-](0\d|1[0-4]):[0-5]\d)$`)

func parseTime(field, s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || !dateTime.MatchString(s) {
		return t, stanza.BadRequest("%q in the form field %q is not a time such as 2026-11-22T20:30:00Z", s, field)
	}
	if t.IsZero() {
		t = t.Add(1) // the zero time stands for an open bound
	}
	return t, nil
}

// queryForm lists the fields that a query of a room's or an account's archive may
// have (XEP-0313 section 4.1.5).
func queryForm(room bool) *stanza.Element {
	field := func(typ, name string) *stanza.Element { return stanza.New(NSForm, "field", "type", typ, "var", name) }
	const nsValidate = "http://jabber.org/protocol/xdata-validate"
	form := stanza.New(NSForm, "x", "type", "form").Add(
		field("hidden", "FORM_TYPE").Add(stanza.New(NSForm, "value").AddText(NS)),
		field("jid-single", "with"),
		field("text-single", "start"),
		field("text-single", "end"),
		field("text-single", "before-id"),
		field("text-single", "after-id"),
		// Open: any id may be given, and none is listed (XEP-0122 section 3.2.2).
		field("list-multi", "ids").Add(
			stanza.New(nsValidate, "validate", "datatype", "xs:string").Add(stanza.New(nsValidate, "open"))),
	)
	if !room {
		form.Add(field("boolean", "include-groupchat"))
	}
	return form
}
