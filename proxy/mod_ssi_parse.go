package proxy

import "bytes"

// Finding commands in a body that comes in pieces (ngx_http_ssi_parse).

// ssiPage processes one body.
type ssiPage struct {
	conf *ssiConf
	next bodyWriter

	// the parser
	state   ssiState
	held    int // bytes of ssiOpening that have been seen
	quote   byte
	command []byte
	params  []ssiParam
	many    bool // more parameters than any command has

	// what commands have changed
	output      bool // text is sent
	chosen      bool // a branch of the current if has been taken
	conditional ssiBranch
	block       *ssiBlock // that takes what is not sent
	encoding    ssiEncoding
	timeFormat  string
	message     []byte // shown where a command fails
}

type ssiParam struct{ name, value []byte }

// ssiState is where in a command the parser is.
type ssiState uint8

const (
	ssiText ssiState = iota
	ssiOpen
	ssiPreCommand
	ssiCommand
	ssiPreParam
	ssiName
	ssiPreEqual
	ssiPreValue
	ssiValue
	ssiEscaped // behind a backslash in a value
	ssiPostValue
	ssiEnd0 // behind "-"
	ssiEnd1 // behind "--"
	ssiBad  // in what could not be understood, up to its "-->"
	ssiBadEnd0
	ssiBadEnd1
)

const ssiOpening = "<!--#"

// The limits of nginx.
const (
	maxSSIName   = 32
	maxSSIParams = 16
)

func newSSIPage(c *ssiConf) *ssiPage {
	return &ssiPage{
		conf: c, output: true, encoding: encodeEntities, timeFormat: ssiTimeFormat,
		message: []byte("[an error occurred while processing the directive]"),
	}
}

func (s *ssiPage) install(next bodyWriter) bodyWriter {
	s.next = next
	return s.write
}

// write is the body filter.
func (s *ssiPage) write(x *Exchange, p []byte, last bool) error {
	for len(p) > 0 {
		if s.state == ssiText {
			i := bytes.IndexByte(p, '<')
			if i < 0 {
				i = len(p)
			}
			if err := s.emit(x, p[:i]); err != nil {
				return err
			}
			if p = p[i:]; len(p) > 0 {
				s.state, s.held, p = ssiOpen, 1, p[1:]
			}
			continue
		}
		if s.state == ssiOpen {
			if p[0] != ssiOpening[s.held] { // it was text
				held := s.held
				s.state = ssiText
				if err := s.emit(x, []byte(ssiOpening[:held])); err != nil {
					return err
				}
				continue
			}
			if s.held++; s.held == len(ssiOpening) {
				s.state = ssiPreCommand
			}
			p = p[1:]
			continue
		}
		c := p[0]
		p = p[1:]
		if err := s.step(x, c); err != nil {
			return err
		}
	}
	if last || x.output.urge != 0 {
		return s.next(x, nil, last)
	}
	return nil
}

// step takes one byte inside of a command.
func (s *ssiPage) step(x *Exchange, c byte) error {
	if s.state != ssiEnd1 && s.state != ssiBadEnd1 || c != '>' {
		s.feed(x, c)
		return nil
	}
	good := s.state == ssiEnd1
	s.state = ssiText
	if good {
		ok, err := s.run(x)
		if ok || err != nil {
			return err
		}
	}
	if s.conf.silent {
		return nil
	}
	return s.next(x, s.message, false)
}

// emit passes text on, or keeps it for a block.
func (s *ssiPage) emit(x *Exchange, p []byte) error {
	switch {
	case len(p) == 0:
	case s.output:
		return s.next(x, p, false)
	case s.block != nil:
		s.keep(x, p)
	}
	return nil
}

// maxSSIBlocks bounds the memory of blocks. Unlike nginx, which keeps all.
const maxSSIBlocks = 1 << 20

func (s *ssiPage) keep(x *Exchange, pieces ...[]byte) {
	shared := x.ssiShared()
	for _, p := range pieces {
		if shared.size+len(p) > maxSSIBlocks {
			x.Logf(logError, "the SSI block \"%s\" is too large", s.block.name)
			return
		}
		shared.size += len(p)
		s.block.text = append(s.block.text, p...)
	}
}

func isSSISpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// feed moves the parser by one byte.
func (s *ssiPage) feed(x *Exchange, c byte) {
	switch s.state {
	case ssiPreCommand:
		if !isSSISpace(c) {
			s.command, s.params, s.many = append(s.command[:0], c), s.params[:0], false
			s.state = ssiCommand
		}
	case ssiCommand:
		s.feedCommand(x, c)
	case ssiPreParam:
		switch {
		case isSSISpace(c):
		case c == '-':
			s.state = ssiEnd0
		default:
			s.beginParam(c)
		}
	case ssiName, ssiPreEqual, ssiPreValue:
		s.feedName(x, c)
	case ssiValue, ssiEscaped:
		s.feedValue(x, c)
	case ssiPostValue:
		switch {
		case isSSISpace(c):
			s.state = ssiPreParam
		case c == '-':
			s.state = ssiEnd0
		default:
			p := s.param()
			s.refuse(x, c, "unexpected \"%c\" symbol after \"%s\" value of \"%s\" parameter in \"%s\" SSI command", c, p.value, p.name, s.command)
		}
	case ssiEnd0:
		if c == '-' {
			s.state = ssiEnd1
			return
		}
		s.refuse(x, 0, "unexpected \"%c\" symbol in \"%s\" SSI command", c, s.command)
	case ssiEnd1:
		s.refuse(x, 0, "unexpected \"%c\" symbol in \"%s\" SSI command", c, s.command)
	case ssiBad, ssiBadEnd0:
		switch {
		case c != '-':
			s.state = ssiBad
		default:
			s.state++
		}
	case ssiBadEnd1:
		s.state = ssiBad
	case ssiText, ssiOpen:
	}
}

// refuse logs what is wrong and skips to the end of the command. A dash may
// begin that end already.
func (s *ssiPage) refuse(x *Exchange, c byte, format string, a ...any) {
	x.Logf(logError, format, a...)
	s.state = ssiBad
	if c == '-' {
		s.state = ssiBadEnd0
	}
}

func (s *ssiPage) feedCommand(x *Exchange, c byte) {
	switch {
	case isSSISpace(c):
		s.state = ssiPreParam
	case c == '-':
		s.state = ssiEnd0
	case len(s.command) == maxSSIName:
		s.refuse(x, 0, "the \"%s%c...\" SSI command is too long", s.command, c)
	default:
		s.command = append(s.command, c)
	}
}

// beginParam begins a parameter, in memory that is used again.
func (s *ssiPage) beginParam(c byte) {
	s.state = ssiName
	if len(s.params) > maxSSIParams {
		s.many = true
		s.params = s.params[:maxSSIParams]
	}
	if len(s.params) < cap(s.params) {
		s.params = s.params[:len(s.params)+1]
	} else {
		s.params = append(s.params, ssiParam{})
	}
	p := s.param()
	p.name, p.value = append(p.name[:0], c), p.value[:0]
}

func (s *ssiPage) param() *ssiParam { return &s.params[len(s.params)-1] }

func (s *ssiPage) feedName(x *Exchange, c byte) {
	p := s.param()
	switch {
	case isSSISpace(c):
		if s.state == ssiName {
			s.state = ssiPreEqual
		}
	case s.state == ssiPreValue && (c == '"' || c == '\''):
		s.quote, s.state = c, ssiValue
	case s.state == ssiPreValue:
		s.refuse(x, c, "unexpected \"%c\" symbol before value of \"%s\" parameter in \"%s\" SSI command", c, p.name, s.command)
	case c == '=':
		s.state = ssiPreValue
	case s.state == ssiPreEqual || c == '-':
		s.refuse(x, c, "unexpected \"%c\" symbol after \"%s\" parameter in \"%s\" SSI command", c, p.name, s.command)
	case len(p.name) == maxSSIName:
		s.refuse(x, 0, "too long \"%s%c...\" parameter in \"%s\" SSI command", p.name, c, s.command)
	default:
		p.name = append(p.name, c)
	}
}

func (s *ssiPage) feedValue(x *Exchange, c byte) {
	p := s.param()
	if s.state == ssiValue && c == s.quote {
		s.state = ssiPostValue
		return
	}
	if int64(len(p.value)) >= s.conf.valueLength {
		s.refuse(x, 0, "too long \"%s%c...\" value of \"%s\" parameter in \"%s\" SSI command", p.value, c, p.name, s.command)
		return
	}
	p.value = append(p.value, c)
	if s.state == ssiValue && c == '\\' {
		s.state = ssiEscaped
	} else {
		s.state = ssiValue
	}
}
