package proxy

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"

	"proxyctl/proxy/http1"
)

// The formats of autoindex.

// indexNameLength is how many characters of a name are shown.
const indexNameLength = 50

// appendHTML appends the list as a page.
func (c *autoindexConf) appendHTML(dst []byte, x *Exchange, entries []indexEntry) []byte {
	dst = appendEntities(append(dst, "<html>\r\n<head><title>Index of "...), x.uri)
	dst = appendEntities(append(dst, "</title></head>\r\n<body>\r\n<h1>Index of "...), x.uri)
	dst = append(dst, "</h1><hr><pre><a href=\"../\">../</a>\r\n"...)
	isUTF8 := equalFold(x.Out.Charset, "utf-8")
	for i := range entries {
		dst = c.appendEntry(dst, &entries[i], isUTF8)
	}
	return append(dst, "</pre><hr></body>\r\n</html>\r\n"...)
}

func (c *autoindexConf) appendEntry(dst []byte, e *indexEntry, isUTF8 bool) []byte {
	name := []byte(e.name)
	dst = appendEscaped(append(dst, `<a href="`...), name, &escapeComponent)
	if e.dir {
		dst = append(dst, '/')
	}
	dst = append(dst, `">`...)
	length := len(name)
	if isUTF8 {
		length = utf8.RuneCount(name)
	}
	if length > indexNameLength {
		dst = append(appendEntities(dst, cutName(name, indexNameLength-3, isUTF8)), "..&gt;</a>"...)
	} else {
		dst = appendEntities(dst, name)
		if e.dir && length < indexNameLength {
			dst = append(dst, '/')
			length++
		}
		dst = append(append(dst, "</a>"...), bytes.Repeat([]byte(" "), indexNameLength-length)...)
	}
	when := e.modified.UTC()
	if c.local {
		when = e.modified.Local()
	}
	dst = when.AppendFormat(append(dst, ' '), "02-Jan-2006 15:04 ")
	switch {
	case c.exact && e.dir:
		dst = append(dst, "                  -"...)
	case c.exact:
		dst = appendPadded(dst, int(e.size), 19, ' ')
	case e.dir:
		dst = append(dst, "      -"...)
	default:
		dst = appendShortSize(dst, e.size)
	}
	return append(dst, "\r\n"...)
}

// cutName gives the first n characters of a name.
func cutName(name []byte, n int, isUTF8 bool) []byte {
	if !isUTF8 {
		return name[:n]
	}
	end := 0
	for range n {
		_, size := utf8.DecodeRune(name[end:])
		end += size
	}
	return name[:end]
}

// appendShortSize appends a size rounded to K, M or G.
func appendShortSize(dst []byte, n int64) []byte {
	for i, unit := range []int64{1 << 30, 1 << 20, 1 << 10} {
		if n > unit-1 && (unit != 1<<10 || n > 9999) {
			size := n / unit
			if n%unit > unit/2-1 {
				size++
			}
			return append(appendPadded(dst, int(size), 6, ' '), "GMK"[i])
		}
	}
	return appendPadded(append(dst, ' '), int(n), 6, ' ')
}

func (e *indexEntry) kind() string {
	switch {
	case e.dir:
		return "directory"
	case e.file:
		return "file"
	}
	return "other"
}

// appendIndexJSON appends the list as JSON, as the argument of a function if
// there is one.
func appendIndexJSON(dst []byte, entries []indexEntry, callback []byte) []byte {
	if len(callback) > 0 {
		dst = append(append(append(dst, "/* callback */\r\n"...), callback...), '(')
	}
	dst = append(dst, '[')
	for i := range entries {
		e := &entries[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendIndexString(append(dst, "\r\n{ \"name\":\""...), e.name)
		dst = append(append(append(dst, `", "type":"`...), e.kind()...), `", "mtime":"`...)
		dst = append(http1.AppendTime(dst, e.modified.Unix()), '"')
		if e.file {
			dst = strconv.AppendInt(append(dst, `, "size":`...), e.size, 10)
		}
		dst = append(dst, " }"...)
	}
	dst = append(dst, "\r\n]"...)
	if len(callback) > 0 {
		dst = append(dst, ");"...)
	}
	return dst
}

// appendIndexString appends a name as JSON wants it (ngx_escape_json).
func appendIndexString(dst []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		switch j := bytes.IndexByte([]byte("\b\f\n\r\t"), c); {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case j >= 0:
			dst = append(dst, '\\', "bfnrt"[j])
		case c < ' ':
			dst = append(dst, `\u00`...)
			dst = append(dst, '0'+c>>4, "0123456789ABCDEF"[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// appendIndexXML appends the list as XML.
func appendIndexXML(dst []byte, entries []indexEntry) []byte {
	dst = append(dst, "<?xml version=\"1.0\"?>\r\n<list>\r\n"...)
	for i := range entries {
		e := &entries[i]
		dst = append(append(append(dst, '<'), e.kind()...), ` mtime="`...)
		dst = append(e.modified.UTC().AppendFormat(dst, time.RFC3339), '"')
		if e.file {
			dst = append(strconv.AppendInt(append(dst, ` size="`...), e.size, 10), '"')
		}
		dst = appendEntities(append(dst, '>'), []byte(e.name))
		dst = append(append(append(dst, "</"...), e.kind()...), ">\r\n"...)
	}
	return append(dst, "</list>\r\n"...)
}
