package proxy

import (
	"compress/gzip"
	"math/bits"
	"strconv"
	"sync"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_gzip_filter_module: compresses answers.

func gzipModule() Module {
	const (
		in     = inHTTPLevels
		reason = "the memory of a compressor is pooled and of one size"
		doc    = "Accepted without effect."
	)
	window := []string{"512", "1k", "2k", "4k", "8k", "16k", "32k"}
	return Module{
		Name: "ngx_http_gzip_filter_module",
		Commands: []Command{
			Flag(Command{Name: "gzip", In: in | InLocationIf, Default: "off", Doc: "Compresses answers."}, func(c *Conf) *bool { return &c.Gzip.on }),
			MIMETypes(Command{Name: "gzip_types", In: in, Doc: "Sets the types that are compressed."}, func(c *Conf) *mimeTypes { return &c.Gzip.types }, "text/html"),
			NumberIn(Command{Name: "gzip_comp_level", In: in, Syntax: "level", Default: "1", Differs: "the compressor is another one: answers decompress to the same, and differ in size by some per cent", Doc: "Sets how hard to compress, from 1 to 9."}, 1, 9, func(c *Conf) *int { return &c.Gzip.level }),
			Size(Command{Name: "gzip_min_length", In: in, Default: "20", Doc: "Sets the least length that is compressed."}, func(c *Conf) *int64 { return &c.Gzip.minLength }),
			Buffer(Command{Name: "gzip_buffers", In: in, Default: "32 4k|16 8k", Doc: doc, Status: NoEffect, Reason: reason}, func(c *Conf) *Buffers { return &c.Gzip.buffers }),
			{Name: "gzip_window", In: in, Args: "1", Syntax: "size", Default: "32k", Doc: doc, Status: NoEffect, Reason: reason, Set: oneOfSizes(window)},
			{Name: "gzip_hash", In: in, Args: "1", Syntax: "size", Default: "64k", Doc: doc, Status: NoEffect, Reason: reason, Set: oneOfSizes(append(window, "64k", "128k"))},
			Size(Command{Name: "postpone_gzipping", In: in, Default: "0", Doc: doc, Status: NoEffect, Reason: reason}, func(c *Conf) *int64 { return &c.Gzip.unused }),
			Flag(Command{Name: "gzip_no_buffer", In: in, Default: "off", Doc: doc, Status: NoEffect, Reason: reason}, func(c *Conf) *bool { return &c.Gzip.unusedFlag }),
		},
		Variables: []Variable{readOnly("gzip_ratio", appendGzipRatio)},
		Init: func(c *Conf) {
			c.Gzip = gzipModuleConf{level: 1, minLength: 20, types: mimeTypes{names: []string{"text/html"}}}
		},
		Header: func(c *Conf) HeaderFilter {
			if !c.Gzip.on {
				return nil
			}
			return c.Gzip.filter
		},
	}
}

// gzipModuleConf is what the module knows at a level.
type gzipModuleConf struct {
	on         bool
	types      mimeTypes
	level      int
	minLength  int64
	buffers    Buffers
	unused     int64
	unusedFlag bool
}

// gzipScratch is how much an exchange has compressed.
type gzipScratch struct{ in, out int64 }

// oneOfSizes makes a setter that only checks.
func oneOfSizes(sizes []string) func(*Level, *parser.Directive) error {
	return func(_ *Level, d *parser.Directive) error {
		n, ok := parseSize(d.Args[0].Value)
		if !ok {
			return errAt(d.Args[0], "Y009", `sizes are digits and end in k or m: "10m"`, "invalid value")
		}
		text := "must be "
		for i, s := range sizes {
			if m, _ := parseSize(s); m == n {
				return nil
			}
			switch i {
			case 0:
			case len(sizes) - 1:
				text += ", or "
			default:
				text += ", "
			}
			text += s
		}
		return errAt(d.Args[0], "Y009", "", text)
	}
}

// filter prepares the head (ngx_http_gzip_header_filter).
func (c *gzipModuleConf) filter(x *Exchange) Code {
	a := &x.Out
	if a.Status != 200 && a.Status != 403 && a.Status != 404 || a.ContentLength >= 0 && a.ContentLength < c.minLength || !c.types.has(a) {
		return OK
	}
	if v, has := a.Find(http1.ContentEncoding); has && len(v) > 0 {
		return OK
	}
	x.variesByEncoding()
	if !x.takesGzip() {
		return OK
	}
	a.Remove(http1.ContentEncoding)
	a.Add(contentEncodingName, gzipCoding)
	a.changesBody()
	x.weakenETag()
	x.EncodeBody(func(next bodyWriter) bodyWriter {
		z := &compressor{next: next, level: c.level}
		return z.write
	})
	return OK
}

var (
	contentEncodingName = []byte("Content-Encoding")
	gzipCoding          = []byte("gzip")
)

// variesByEncoding says that others may get this answer in another coding.
func (x *Exchange) variesByEncoding() { x.Out.gzipVary = x.loc.Conf.Core.Gzip.Vary }

// gzipWriters are idle compressors, by level.
var gzipWriters [10]sync.Pool

// compressor is the body filter.
type compressor struct {
	next  bodyWriter
	level int
	gz    *gzip.Writer
	out   []byte // compressed and not yet passed on
}

// compressedPiece is how much is passed on at once.
const compressedPiece = 8 << 10

// Write takes what has been compressed.
func (z *compressor) Write(p []byte) (int, error) {
	z.out = append(z.out, p...)
	return len(p), nil
}

func (z *compressor) write(x *Exchange, p []byte, last bool) error {
	if x.headerOnly {
		return z.next(x, p, last)
	}
	if z.gz == nil {
		if len(p) == 0 && !last {
			return z.next(x, nil, false)
		}
		if len(p) < tiny {
			z.level = max(z.level, 2)
		}
		z.start()
	}
	for len(p) > 0 { // in turns, so that little of it waits in memory
		n := min(len(p), 4*compressedPiece)
		_, _ = z.gz.Write(p[:n])
		x.gzip.in += int64(n)
		p = p[n:]
		if len(z.out) >= compressedPiece {
			if err := z.pass(x, false); err != nil {
				return err
			}
		}
	}
	switch {
	case last:
		_ = z.gz.Close()
		gzipWriters[z.level].Put(z.gz)
		z.gz = nil
		if x.gzip.out == 0 && x.gzip.in < oneBlock {
			z.out = shorten(z.out)
		}
		return z.pass(x, true)
	case x.output.urge == flushing:
		_ = z.gz.Flush()
		return z.pass(x, false)
	}
	return nil
}

// oneBlock is from how many bytes on compress/flate may use a second block.
const oneBlock = 1 << 14

// tiny is up to where compress/flate does little more than copy on its level 1.
const tiny = 128

// shorten takes away the empty block that compress/flate ends a stream with. The
// only block before it becomes the last, so that small answers are as short as
// nginx's. Without any, the empty one is written in the shorter form (RFC 1951,
// section 3.2).
func shorten(z []byte) []byte {
	const head, tail, lengths = 10, 8, 4 // of gzip, and of the empty block behind its first three bits
	data, sums := z[head:len(z)-tail-lengths], z[len(z)-tail:]
	last := len(data) - 1
	for data[last] == 0 { // the three bits are 1, 0, 0: the 1 is the last of all
		last--
	}
	mark := bits.Len8(data[last]) - 1
	switch {
	case last == 0 && mark == 0:
		data = append(data[:0], 0x03, 0x00)
	case mark == 0:
		data[0] |= 1
		data = data[:last]
	default:
		data[0] |= 1
		data[last] &^= 1 << mark
		data = data[:last+1]
	}
	return append(z[:head+len(data)], sums...)
}

// start takes an idle compressor, or makes one.
func (z *compressor) start() {
	if gz, ok := gzipWriters[z.level].Get().(*gzip.Writer); ok {
		z.gz = gz
		gz.Reset(z)
	} else {
		z.gz, _ = gzip.NewWriterLevel(z, z.level)
	}
	z.gz.OS = 3 // Unix, as zlib says there
}

// pass sends on what has been compressed.
func (z *compressor) pass(x *Exchange, last bool) error {
	x.gzip.out += int64(len(z.out))
	err := z.next(x, z.out, last)
	z.out = z.out[:0]
	return err
}

// appendGzipRatio gives $gzip_ratio, rounded to two digits.
func appendGzipRatio(dst []byte, x *Exchange) ([]byte, bool) {
	in, out := x.gzip.in, x.gzip.out
	if out == 0 {
		return dst, false
	}
	hundredths := in * 100 / out
	if in*1000/out%10 > 4 {
		hundredths++
	}
	dst = append(strconv.AppendInt(dst, hundredths/100, 10), '.')
	return appendPadded(dst, int(hundredths%100), 2, '0'), true
}
