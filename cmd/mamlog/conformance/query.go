package conformance

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// query is an archive query as "asks:" words it, and what "gets:" needs to
// know of it afterwards.
type query struct {
	id   string
	to   string
	flip bool
	xml  string
}

// words splits an argument list at spaces, expanding captures after that.
func words(arg string, v Vars) ([]string, error) {
	fields := strings.Fields(arg)
	for i, f := range fields {
		var err error
		if fields[i], err = v.Expand(f); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

// buildQuery turns "max=5 before= with=romeo@test.example flip" into an IQ.
// Names it does not know become form fields, so that wrong ones can be asked
// for too.
func buildQuery(arg string, v Vars) (*query, error) {
	fields, err := words(arg, v)
	if err != nil {
		return nil, err
	}
	q := &query{id: newID()}
	var form, rsm, queryID string
	queryID = q.id
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		switch name {
		case "flip":
			q.flip = true
		case "to":
			q.to = value
		case "rsm": // only an empty set, as some clients send it
			rsm += " "
		case "max", "after", "before", "index":
			rsm += "<" + name + ">" + escape(value) + "</" + name + ">"
		default:
			form += "<field var='" + escape(name) + "'>"
			for _, one := range strings.Split(value, ",") {
				form += "<value>" + escape(one) + "</value>"
			}
			form += "</field>"
		}
	}
	if form != "" {
		form = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>" + nsMAM +
			"</value></field>" + form + "</x>"
	}
	if rsm != "" {
		rsm = "<set xmlns='" + nsRSM + "'>" + rsm + "</set>"
	}
	flip := ""
	if q.flip {
		flip = "<flip-page/>"
	}
	to := ""
	if q.to != "" {
		to = " to='" + escape(q.to) + "'"
	}
	q.xml = "<iq type='set' id='" + q.id + "'" + to + "><query xmlns='" + nsMAM + "' queryid='" + queryID + "'>" +
		form + rsm + flip + "</query></iq>"
	return q, nil
}

var span = regexp.MustCompile(`^([a-z]+)(\d+)\.\.([a-z]+)(\d+)$`)

// expectPage turns "m6..m10 count=15 index=5 complete=false" into the patterns
// of the results, in the order of sending, and of the answer to the IQ.
func expectPage(arg, own, full string, q *query, bodies map[string]string) ([]string, error) {
	// The own account needs not say who it is; every other archive must.
	owner := "?" + own
	if q.to != "" && strings.ToLower(q.to) != own {
		owner = q.to
	}
	var ids []string
	opts := map[string]string{}
	for _, f := range strings.Fields(arg) {
		if name, value, ok := strings.Cut(f, "="); ok {
			opts[name] = value
			continue
		}
		if f == "nothing" {
			continue
		}
		m := span.FindStringSubmatch(f)
		if m == nil {
			ids = append(ids, f)
			continue
		}
		from, _ := strconv.Atoi(m[2])
		to, _ := strconv.Atoi(m[4])
		step := 1
		if to < from {
			step = -1
		}
		for i := from; i != to+step; i += step {
			ids = append(ids, m[1]+strconv.Itoa(i))
		}
	}
	for _, need := range []string{"count", "complete"} {
		if opts[need] == "" {
			return nil, fmt.Errorf("gets: wants %s=", need)
		}
	}
	var patterns []string
	for _, id := range ids {
		message := bodies[id] // what the fixture knows of it
		if message == "" {
			message = "<any/>"
		}
		patterns = append(patterns, "<message to='"+full+"' from='"+owner+"' id='?*' type='?normal'>"+
			"<result xmlns='"+nsMAM+"' queryid='"+q.id+"' id='{{"+id+"}}'>"+
			"<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='{{"+id+".stamp}}'/>"+
			strings.Replace(message, "<any/>", "<any xmlns='"+nsClient+"'/>", 1)+"</forwarded></result></message>")
	}
	bounds := ""
	if len(ids) > 0 {
		if opts["index"] == "" {
			return nil, fmt.Errorf("gets: wants index=")
		}
		chronological := slices.Clone(ids)
		if q.flip {
			// Flipping changes the order of sending and nothing else.
			slices.Reverse(chronological)
		}
		bounds = "<first index='" + opts["index"] + "'>{{" + chronological[0] + "}}</first><last>{{" +
			chronological[len(ids)-1] + "}}</last>"
	}
	complete := "?false"
	if opts["complete"] == "true" {
		complete = "true"
	}
	return append(patterns, "<iq type='result' id='"+q.id+"' to='"+full+"' from='"+owner+"'>"+
		"<fin xmlns='"+nsMAM+"' complete='"+complete+"' stable='?true' queryid='?"+q.id+"'><set xmlns='"+nsRSM+"'>"+
		bounds+"<count>"+opts["count"]+"</count></set></fin></iq>"), nil
}

// expectError turns "item-not-found cancel" into the pattern of an IQ error; a
// condition may be several, "bad-request|jid-malformed", of which one must fit.
// The offending request may be quoted in it.
func expectError(arg, id, full string) ([]string, error) {
	conditions, typ, ok := strings.Cut(strings.TrimSpace(arg), " ")
	if !ok {
		return nil, fmt.Errorf("fails: wants a condition and a type, as in item-not-found cancel")
	}
	var patterns []string
	for _, c := range strings.Split(conditions, "|") {
		patterns = append(patterns, "<iq type='error' id='"+id+"' to='"+full+"' from='?*'>...<error type='"+typ+"' by='?*'>...<"+
			c+" xmlns='"+nsStanzas+"'/></error></iq>")
	}
	return patterns, nil
}
