package main

import (
	"fmt"
	"io"

	adminv1 "mamlog/admin/v1"
	"mamlog/xep0313/stanza"
)

// xmlPrinter prints <result/> elements as XEP-0313 section 4.2 defines them.
type xmlPrinter struct {
	out    io.Writer
	owner  string
	opened bool
}

func (p *xmlPrinter) open() error {
	if p.opened {
		return nil
	}
	p.opened = true
	_, err := fmt.Fprintf(p.out, "<?xml version='1.0' encoding='UTF-8'?>\n<archive xmlns='urn:mamlog:archive' owner='%s'>\n", stanza.AppendEscaped(nil, p.owner))
	return err
}

func (p *xmlPrinter) page(page *adminv1.QueryArchiveResponse) error {
	if err := p.open(); err != nil {
		return err
	}
	for _, m := range page.GetMessages() {
		_, err := fmt.Fprintf(p.out, "<result xmlns='urn:xmpp:mam:2' id='%s'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='%s'/>%s</forwarded></result>\n",
			m.GetId(), stamp(m.GetStamp().AsTime()), escaped([]byte(m.GetStanza()), appendXMLEscape))
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *xmlPrinter) end() error {
	if err := p.open(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.out, "</archive>")
	return err
}
