package xep0313

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// HandleIQ answers iq if it is a get or set of the archive's namespace to an
// account, and tells whether it was. asker is the full JID that sent it, as the
// host has established it; an iq without a to is for the asker's own account.
// emit is called for every stanza of the answer, the result or error iq last;
// each is XML with its own xmlns, and not changed afterwards.
func (a *Archive) HandleIQ(ctx context.Context, iq *stanza.Element, asker jid.JID, emit func([]byte)) (handled bool) {
	typ := iq.Attr("type")
	payload := iq.First()
	if payload == nil || payload.Space != NS || typ != "get" && typ != "set" {
		return false
	}
	owner := asker.Bare()
	if to := iq.Attr("to"); to != "" {
		var err error
		if owner, err = jid.Parse(to); err != nil || owner.Localpart() == "" || owner.Resourcepart() != "" {
			return false
		}
		iq = iq.Copy()
		iq.SetAttr("to", owner.String()) // answered from the prepared address
	}
	h := a.hosts[owner.Domainpart()]
	if h == nil {
		return false
	}
	var err error
	if !owner.Equal(asker.Bare()) {
		a.metrics.queries.WithLabelValues(kindOf(payload), "forbidden").Inc()
		err = stanza.Forbidden("only its owner may use an archive")
	} else {
		started := time.Now()
		err = a.answer(ctx, h, iq, payload, asker, emit)
		a.metrics.observe(payload, time.Since(started), err)
	}
	if err != nil {
		var se *stanza.Error
		if !errors.As(err, &se) {
			a.logger.Error("a request to an archive failed", zap.String("kind", kindOf(payload)), zap.Error(err))
			se = stanza.InternalServerError()
		}
		emit(iq.ReplyError(se).Bytes())
	}
	return true
}

// answer emits the answer, or returns the error to answer with, in which case
// it has emitted nothing.
func (a *Archive) answer(ctx context.Context, h *host, iq, payload *stanza.Element, asker jid.JID, emit func([]byte)) error {
	owner := asker.Bare().String()
	set := iq.Attr("type") == "set"
	switch {
	case payload.Local == "query" && set:
		q, err := parseQuery(payload, h.Options.MaxQueryResults)
		if err != nil {
			return err
		}
		if err := a.noteUse(ctx, h, owner, asker.String()); err != nil {
			return err
		}
		return a.page(h, owner, asker, iq, q, emit)
	case payload.Local == "query":
		emit(iq.Reply("result").Add(stanza.New(NS, "query").Add(queryForm())).Bytes())
		return nil
	case payload.Local == "metadata" && !set:
		if err := a.noteUse(ctx, h, owner, asker.String()); err != nil {
			return err
		}
		return a.metadata(h, owner, iq, emit)
	case payload.Local == "prefs" && set:
		p, err := parsePrefs(payload)
		if err != nil {
			return err
		}
		p, err = a.SetPreferences(ctx, asker, p, asker.String(), log.Cause_CAUSE_CLIENT)
		if err != nil {
			return err
		}
		emit(iq.Reply("result").Add(prefsElement(p)).Bytes())
		return nil
	case payload.Local == "prefs":
		if err := a.noteUse(ctx, h, owner, asker.String()); err != nil {
			return err
		}
		p, _, _, err := a.Preferences(asker)
		if err != nil {
			return err
		}
		emit(iq.Reply("result").Add(prefsElement(p)).Bytes())
		return nil
	}
	return stanza.FeatureNotImplemented("<%s/> with type=%q is not part of %s", payload.Local, iq.Attr("type"), NS)
}

// page answers a query with a page of results and <fin/> (XEP-0313 section 4.2).
func (a *Archive) page(h *host, owner string, asker jid.JID, iq *stanza.Element, q query, emit func([]byte)) error {
	all, err := a.all(h, owner)
	if err != nil {
		return err
	}
	q.Class, q.Owner, q.NotBefore, q.Floor = all.Class, all.Owner, all.NotBefore, all.Floor
	page, err := h.Archives.Query(q.Query)
	var missing *projections.NotFoundError
	if errors.As(err, &missing) {
		return stanza.ItemNotFound("there is no message %q in the archive", missing.ID)
	}
	if err != nil {
		return err
	}
	rows := page.Rows
	if q.flip {
		rows = slices.Clone(rows)
		slices.Reverse(rows)
	}
	head := resultHead(owner, asker.String(), q.id)
	size := 0
	for _, r := range rows {
		size += len(head) + len(r.Stanza) + len(resultTail) + 160
	}
	b := make([]byte, 0, size)
	for _, r := range rows {
		from := len(b)
		b = appendResult(b, head, r)
		emit(b[from:len(b):len(b)])
	}
	emit(appendFin(nil, iq, page))
	a.metrics.results.Add(float64(len(rows)))
	return nil
}

// resultHead is what all result messages of one answer begin with.
func resultHead(owner, asker, queryID string) []byte {
	b := append([]byte(nil), `<message xmlns='`+stanza.NSClient+`' from='`...)
	b = stanza.AppendEscaped(b, owner)
	b = append(b, `' to='`...)
	b = stanza.AppendEscaped(b, asker)
	b = append(b, `'><result xmlns='`+NS+`'`...)
	if queryID != "" {
		b = append(b, ` queryid='`...)
		b = stanza.AppendEscaped(b, queryID)
		b = append(b, '\'')
	}
	return append(b, ` id='`...)
}

const resultTail = `</forwarded></result></message>`

// appendResult splices a stored stanza into a result message.
func appendResult(b, head []byte, r projections.Row) []byte {
	b = append(b, head...)
	b = appendID(b, r.ID)
	b = append(b, `'><forwarded xmlns='`+NSForward+`'><delay xmlns='`+NSDelay+`' stamp='`...)
	b = appendStamp(b, r.Time())
	b = append(b, `'/>`...)
	b = append(b, r.Stanza...)
	return append(b, resultTail...)
}

// appendStamp appends a time in the profile of XEP-0082, to the millisecond.
func appendStamp(b []byte, t time.Time) []byte {
	return t.AppendFormat(b, "2006-01-02T15:04:05.000Z")
}

// appendFin appends the iq that ends an answer. First and last are those of the
// page in chronological order, flipped or not.
func appendFin(b []byte, iq *stanza.Element, p projections.Page) []byte {
	fin := stanza.New(NS, "fin")
	if p.Complete {
		fin.SetAttr("complete", "true")
	}
	set := stanza.New(NSRSM, "set")
	if n := len(p.Rows); n > 0 {
		set.Add(
			stanza.New(NSRSM, "first", "index", strconv.Itoa(p.Index)).AddText(p.Rows[0].ID.String()),
			stanza.New(NSRSM, "last").AddText(p.Rows[n-1].ID.String()))
	}
	set.Add(stanza.New(NSRSM, "count").AddText(strconv.Itoa(p.Count)))
	return iq.Reply("result").Add(fin.Add(set)).Append(b, "")
}

// metadata answers with the first and the last message (XEP-0313 section 5).
func (a *Archive) metadata(h *host, owner string, iq *stanza.Element, emit func([]byte)) error {
	all, err := a.all(h, owner)
	if err != nil {
		return err
	}
	first, last, ok, err := h.Archives.Bounds(all.Class, all.Owner, all.NotBefore, all.Floor)
	if err != nil {
		return err
	}
	m := stanza.New(NS, "metadata")
	if ok {
		m.Add(
			stanza.New(NS, "start", "id", first.String(), "timestamp", string(appendStamp(nil, log.IDTime(first)))),
			stanza.New(NS, "end", "id", last.String(), "timestamp", string(appendStamp(nil, log.IDTime(last)))))
	}
	emit(iq.Reply("result").Add(m).Bytes())
	return nil
}
