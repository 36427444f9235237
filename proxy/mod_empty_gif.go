package proxy

import "proxyctl/parser"

// ngx_http_empty_gif_module: answers with a transparent pixel.

func emptyGifModule() Module {
	return Module{
		Name: "ngx_http_empty_gif_module",
		Commands: []Command{{
			Name: "empty_gif", In: InLocation, Args: "0", Repeat: true, Doc: "Answers with a transparent GIF of one pixel.",
			Set: func(l *Level, _ *parser.Directive) error {
				l.Conf.Own.Content = serveEmptyGif
				return nil
			},
		}},
	}
}

// The smallest GIF: a screen of one pixel, a table of two colours of which the
// second is transparent, and that pixel.
var (
	emptyGif = []byte("GIF89a\x01\x00\x01\x00\x80\x01\x00\x00\x00\x00\xff\xff\xff" +
		"!\xf9\x04\x01\x00\x00\x01\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02L\x01\x00;")
	imageGif = []byte("image/gif")
)

// emptyGifTime is when nginx says that it was made: 28 September 1970.
const emptyGifTime = 23349600

func serveEmptyGif(x *Exchange) Code {
	if !x.isMethod("GET") && !x.isMethod("HEAD") {
		return 405
	}
	x.Out.LastModified = emptyGifTime
	return x.SendText(200, imageGif, emptyGif)
}
