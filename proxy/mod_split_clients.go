package proxy

import (
	"encoding/binary"
	"math"
	"strings"

	"proxyctl/parser"
)

// ngx_http_split_clients_module: variables whose values are shared out by a
// hash of a text.

func splitClientsModule() Module {
	return Module{
		Name: "ngx_http_split_clients_module", Stream: "ngx_stream_split_clients_module",
		Commands: []Command{{
			Name: "split_clients", In: InHTTP | InStream, Args: "2", Block: true, Repeat: true, Syntax: "string $variable",
			Doc: "Defines a variable that shares its values out.", Set: setSplitClients,
		}},
	}
}

// clientSplit is a split_clients block.
type clientSplit struct {
	source *Value
	parts  []splitPart
}

// splitPart is a line of it.
type splitPart struct {
	percent uint32 // in hundredths while reading; then the hash it ends before, 0 for all that is left
	value   []byte
}

func setSplitClients(l *Level, d *parser.Directive) error {
	source, err := l.value(d.Args[0].Value)
	if err != nil {
		return err
	}
	name, err := variableName(d.Args[1])
	if err != nil {
		return err
	}
	s := &clientSplit{source: source}
	if _, err := l.addVariable(name, s.fill); err != nil {
		return err
	}
	failed := l.c.errors
	l.Entries(d, s.entry)
	if l.c.errors > failed {
		return nil
	}
	if !s.share() {
		return say("percent total is greater than 100%%")
	}
	return nil
}

func (s *clientSplit) entry(e *parser.Directive) error {
	percent := uint32(0)
	if key := e.Name.Value; key != "*" {
		text, ok := strings.CutSuffix(key, "%")
		if percent, ok = hundredths(text, ok); !ok || percent == 0 {
			return sayAt(e.Name, "Y009", `"0.5%" or "*"`, "invalid percent value \"%s\"", key)
		}
	}
	value := []byte(nil)
	if len(e.Args) > 0 {
		value = []byte(e.Args[0].Value)
	}
	s.parts = append(s.parts, splitPart{percent, value})
	return nil
}

// hundredths reads a number with up to two decimals (ngx_atofp).
func hundredths(text string, ok bool) (uint32, bool) {
	whole, decimals, _ := strings.Cut(text, ".")
	if !ok || len(decimals) > 2 || whole+decimals == "" {
		return 0, false
	}
	n, ok := digits(whole + decimals + "00"[len(decimals):])
	return uint32(min(n, math.MaxUint32)), ok
}

// share turns percentages into the hashes at which parts end. False: there is
// more than everything.
func (s *clientSplit) share() bool {
	sum, last := uint64(0), uint32(0)
	for i := range s.parts {
		p := &s.parts[i]
		if p.percent == 0 {
			sum = 10000
		} else if sum += uint64(p.percent); sum > 10000 {
			return false
		} else if sum == 10000 {
			p.percent = 0
		}
		if p.percent != 0 {
			last += uint32(uint64(p.percent) * math.MaxUint32 / 10000)
			p.percent = last
		}
	}
	return true
}

// fill computes the variable (ngx_http_split_clients_variable).
func (s *clientSplit) fill(x *Exchange, v *slot) {
	b := s.source.Append(x.borrow(), x)
	h := murmur2(b)
	x.giveBack(b)
	v.value, v.state = nil, slotSet
	for i := range s.parts {
		if p := &s.parts[i]; h < p.percent || p.percent == 0 {
			v.value, v.state = p.value, slotSet
			return
		}
	}
}

// murmur2 is MurmurHash2 with the seed 0, as nginx has it.
func murmur2(b []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * m
		h = h*m ^ (k^k>>24)*m
	}
	if len(b) > 0 {
		var rest [4]byte
		copy(rest[:], b)
		h = (h ^ binary.LittleEndian.Uint32(rest[:])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
