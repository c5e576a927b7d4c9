"""Texts that stand where a caption should be: placeholders, file names, identifiers, templates that nobody filled in.

Each rule is of a kind rather than of a list, and says of short texts no more than it must: "seven", "七", "7" and "A4"
are captions.
"""

import re
import unicodedata

from .patterns import either, word_list

_WORDS = word_list(
    """todo|tbd|tba|tbc|fixme|xxx|n/a|n.a|n\\a|na|none|null|nil|nan|nat|inf|undefined|unknown|missing|empty|untitled|unnamed
    no caption|no description|no title|no text|no alt text|no name|no data|no information|not available|not applicable
    not specified|not provided|caption|a caption|the caption|caption text|your caption|alt text|alt|description
    a description|title|text|some text|label|name|image|an image|the image|this image|img|photo|a photo|the photo
    photograph|a photograph|picture|a picture|the picture|pic|thumbnail|placeholder|sample|sample text|example
    example text|default|dummy|dummy text|test|testing|test caption|foo|foobar|foo bar|asdf|asdfasdf|blah|blah blah
    blah blah blah|true|false|error|deleted|removed|redacted|coming soon|loading|click here|image not found|no image
    image not available|image unavailable|no photo|404|404 not found|not found|403 forbidden|forbidden|access denied
    object object|new folder|new document|document|file|attachment|image/jpeg|image/png|#n/a|#ref!|#value!|#name?|#null!
    <na>|无|無|暂无|暂无描述|暂无标题|无标题|无描述|未命名|图片|照片|圖片|描述|标题|測試|测试|無題|名称未設定|画像|写真
    説明なし|なし|없음|사진|이미지|제목 없음|ohne titel|kein titel|unbenannt|bild|foto|fotografie|sans titre|sans nom
    aucune description|image sans titre|sin título|sin titulo|sin descripción|imagen|fotografía
    senza titolo|immagine|sem título|sem titulo|imagem|zonder titel|afbeelding|uden titel|utan titel
    без названия|без имени|нет|нет описания|фото|изображение|картинка|изображение недоступно"""
)
_COUNTED = re.compile(r"[\s_#(.-]*\d{1,6}\)?$")  # "untitled 3", "image (2)"

_SUFFIX = re.compile(
    r"\.(?:jpe?g|jfif|png|gif|webp|bmp|tiff?|heic|heif|avif|svg|ico|raw|cr[23]|nef|arw|dng|orf|rw2|psd|xcf|ai|eps|pdf"
    r"|mp4|mov|avi|webm)$",
    re.IGNORECASE,
)
_CAMERA = re.compile(  # what cameras, telephones and programs call files: a word, numbers, perhaps a remark
    r"(?:img|imag|image|dsc|dscn|dscf|_?dsc[a-z]?|pict?|picture|photo|p|mvi|mov|vid|video|gopr?|gx|dji|pxl|wp|sam|cimg|kimg"
    r"|sdc|screenshot|screen shot|screen recording|scan(?:ned)?|snapshot|snap|whatsapp image|fb_img|signal|received"
    r"|capture|burst|pano|mtimg|wx_camera|mmexport|file|unnamed|download|untitled|document|attachment|export|output"
    r"|result|copy of)"
    r"[\s_.-]*e?(?=[\d\s_.-]*\d)[\d\s_.:()\-–]*(?:at[\s\d.:_-]+(?:[ap]m)?)?"
    r"(?:[\s_.-]*(?:copy|edit(?:ed)?|hdr|wa\d+|final|cover|burst\d*|portrait|mp|n|o|k|b|z))?\d*",
    re.IGNORECASE,
)
_STOCK = re.compile(
    r"(?:pexels|istock(?:photo)?|shutterstock|unsplash|gettyimages?|adobestock|depositphotos|alamy|pixabay|freepik"
    r"|dreamstime|pinterest|flickr|instagram)(?:[\d_-][\w.-]*)?",
    re.IGNORECASE,
)
_IDENTIFIER = either(
    r"\{?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\}?",  # UUID
    r"(?=.*\d)(?=.*[a-f])[0-9a-f]{8,}|[0-9a-f]{16,}",  # a hash; "deadbeef" may be a word
    r"[a-z]{0,8}[-_#]?\d{5,}[a-z]?|[a-z]{0,8}[-_#]?0\d{3,}[a-z]?",  # SKU-123456, d0367
    r"(?=\w*_)(?=\w*\d)[a-z]\w*|\w*_\w*\d[\w-]*|(?-i:[A-Z0-9]{2,}(?:-[A-Z0-9]{2,}){2,})",  # cap_type_0, AB-12-XK
)
_GROUPS_OF_DIGITS = re.compile(r"\d+")
_PATH = either(
    r"(?:~?/|\.\.?[/\\]|[a-z]:[/\\]|\\\\|[\w.-]+\\[\w.-]+\\)\S*",
    r"[\w.-]+(?:/[\w.-]+)*/[\w.-]*[\d_.][\w.-]*/?",  # "black/white" is none
    r"\S+/\S+/\S+/\S+",
)
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "azertyuiop")
_ASKS = either(
    r"(?:please )?(?:insert|enter|add|type|write|put|provide)(?: (?:an?|the|your|some))? "
    r"(?:caption|text|description|title|label)s?(?: here)?",
    r"(?:your |the )?(?:caption|text|title|description|label)s? (?:goes |text )?here",
    r"no (?:caption|description|title|text|image|photo|picture|alt text|label)s? (?:is |was )?"
    r"(?:available|provided|found|given|yet|set)",
    r"(?:caption|description|title|image|photo) (?:is |was )?(?:unavailable|missing|pending"
    r"|not (?:available|provided|found|given|set))",
    r"(?:this|it) is (?:an?|the) (?:photo|image|picture)",
)
_CREDIT = either(
    r"(?:[Pp]hoto(?:graph)?|[Ii]mage|[Pp]icture|PHOTO|IMAGE)s? (?:[Cc]redits?|[Bb]y|[Cc]ourtesy of):?"
    r"(?: [A-Z][\w'.-]*){0,4}",
    r"(?:©|\([cC]\)|[Cc]opyright)\s.{0,60}|[Aa]ll [Rr]ights [Rr]eserved",
    flags=0,
)
_OF_WHAT = re.compile(
    r"(?:(?:this|here|it)(?: is|'s)? )?(?:an? |the |my |one |some )?(?:\w+ )?"
    r"(?:photos?|photographs?|images?|pictures?|pics?|drawing|painting|illustration|render(?:ing)?|close-?up|view|shot)"
    r" (?:of|showing|shows|depicting|with|from|in|is)(?: (?:an?|the|some|my|this))?",
    re.IGNORECASE,
)
_NO_CONTENT = word_list("a an the of in on at to by for from with and or is are this that it its as some my your")
_SLOT = (  # what templates name the places where words are to go
    r"(?:insert|enter|add|type|put|write|your|describe|placeholder|caption|label|class|category|name|title|subject|object"
    r"|description|prompt|color|colour|adjective|noun|text|todo|tbd|product|artist|style|keyword|filename|file|image|word"
    r"|data|redacted|removed|blank|unknown|item|thing|person|animal|brand|location|city|date|here|digit|number)"
    r"(?:[ _-]+[\w-]+){0,5}\s*"
)
_TEMPLATE = either(
    r"\{\{[^{}]*\}\}|\{%[^{}]*%\}|\$?\{[^{}\n:\"']{0,80}\}|<%.*?%>|\$\([\w.]+\)|(?-i:(?<!\w)\$[A-Z][A-Z_]{2,}\b)",
    r"(?<![\w%])%\(\w+\)[sdf]|(?<![\w%])%[sd](?!\w)|(?-i:(?<!\w)__[A-Z][A-Z0-9_]*__(?!\w))|\[object object\]",
    r"<\s*" + _SLOT + r">(?!.*</)|\[\s*" + _SLOT + r"\](?!\()",
)
_MACHINE = either(
    r"\b(?:ignore|disregard|forget) (?:all |any |the |your )*(?:previous|prior|above|earlier|preceding) (?:\w+ )?"
    r"(?:instructions?|prompts?|rules|text)",
    r"\b(?:system|developer) (?:prompt|message)\b\s*:|<\|[\w ]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>\s*\Z",
    r"\bas an? (?:ai|artificial intelligence|large|language)\b[\w ]{0,20}\b(?:model|assistant)\b",
    r"\A\W*(?:i'?m|i am|we'?re) (?:sorry|unable|not able|afraid)\b",
    r"\A\W*(?:i|we) (?:can(?:['’]?t|not)|could ?n[o'’]?t|am unable)\b",
    r"\A\W*(?:sure|certainly|of course|okay|absolutely)[!,.]+ (?:here|i)\b|\A(?:assistant|user|human|system)\s*:",
    r"\b(?:you are|act as) (?:now )?(?:an? |the )?(?:helpful )?(?:assistant|chatbot|ai)\b",
    r"\A\W*(?:please )?(?:describe|caption|summari[sz]e|write (?:an? )?(?:caption|description)s?(?: for| of)?) "
    r"(?:this|the|following) (?:image|picture|photo)",
)
_PROGRAM = either(
    r"\b(?:alert|eval|document\.\w+|window\.\w+|console\.log)\s*\(|\bfunction\s*\w*\s*\([^)]*\)\s*\{|\bonerror\s*=|=>\s*\{",
    r"(?-i:\bSELECT\b.{1,80}\bFROM\b.{1,80}(?:\bWHERE\b|;))|;\s*(?:drop|delete|insert|update)\s+(?:table|from|into)\b",
    r"<\?php|#!/(?:usr/)?bin/|traceback \(most recent call last\)|(?-i:\b[A-Z]\w+(?:Error|Exception): )",
)
_FILLER = either(r"\blorem ipsum\b|\bdolor sit amet\b|\bconsectetur adipiscing\b")
_TIME = re.compile(r"\d{1,2}:\d{2}")
_SYMBOLS = frozenset({"So", "No", "Nl", "Sk", "Sm", "Sc", "Me"})
_VOWELS = frozenset("aeiouy")


def is_template(text: str) -> bool:
    """Whether a program's template was left unfilled; looked for before markup goes, which would hide it."""
    return any(sign in text for sign in _ANYWHERE[0][0]) and _TEMPLATE.search(text) is not None


def placeholder(text: str) -> str | None:
    """Why a cleaned text is no caption, in words for people; None when it may be one."""
    lower = text.lower()
    for signs, pattern, why in _ANYWHERE:
        if any(sign in lower for sign in signs) and pattern.search(text):
            return why
    return _instead(text) if len(text) <= 300 else None


# What a text must have in it, in small letters, for the pattern to match: quicker to look for.
_ANYWHERE = (
    (("{", "<", "[", "%", "$", "__"), _TEMPLATE, "a template that was not filled in"),
    (
        (
            "instruction", "prompt", "rules", "message", "model", "assistant", "sorry", "unable", "not able", "afraid",
            "cannot", "can't", "can’t", "cant ", "could", "sure", "certainly", "course", "okay", "absolutely", "user",
            "human", "system", "chatbot", " ai", "describe", "caption", "summari", "write", "previous", "prior",
            "preceding", "earlier", "above", "<|", "inst]", "sys>", "s>",
        ),
        _MACHINE,
        "words of or to a language model",
    ),
    (("(", "=", ";", ":", "#!", "<?", "select"), _PROGRAM, "a program's text"),
    (("ipsum", "dolor", "consectetur"), _FILLER, "filler text"),
)  # fmt: skip


def _instead(text: str) -> str | None:
    """Why the whole of a text is no caption."""
    core = text.strip(" \t'\"“”‘’«»「」『』[](){}<>*_-–—=~.,:;!?…|/\\#")
    if not core:
        return "only punctuation"
    key = unicodedata.normalize("NFKC", core).casefold()
    if key in _WORDS or text.casefold() in _WORDS or _COUNTED.sub("", key) in _WORDS:
        return "stands for a caption"
    if _SUFFIX.search(core):
        return "a file name"
    if (why := _without_letters(core)) is not None:
        return why
    if len(core) > 90:
        return None
    if _CAMERA.fullmatch(core):
        return "a file name"
    if _ASKS.fullmatch(core):
        return "stands for a caption"
    if _CREDIT.fullmatch(core):
        return "a credit alone"
    if _OF_WHAT.fullmatch(core):
        return "says only that it is a picture"
    words = key.split()
    if len(words) > 1 and _NO_CONTENT.issuperset(words):
        return "has no word that says anything"
    return _one_word(core, key) if len(words) == 1 else None


def _without_letters(core: str) -> str | None:
    if any(character.isalpha() for character in core):
        return None
    digits = sum(character.isdecimal() for character in core)
    # "7", "100" and "11:30" may be what a picture shows; longer ones, and "007", are identifiers and dates.
    if _TIME.fullmatch(core):
        return None
    if digits > 3 or (digits > 1 and core[0] == "0"):
        return "only digits"
    if digits or any(unicodedata.category(character) in _SYMBOLS or character in "‼⁉" for character in core):
        return None
    return "only punctuation"


def _one_word(core: str, key: str) -> str | None:
    if _IDENTIFIER.fullmatch(core) or (len(core) >= 16 and _looks_random(core)):
        return "an identifier"
    if _STOCK.fullmatch(core):
        return "a file name"
    if _PATH.fullmatch(core):
        return "a path"
    if len(key) >= 5 and any(key in row for row in _KEYBOARD):
        return "no word"
    if len(key) >= 4 and len(set(key)) == 1:
        return "one letter repeated"
    if any(len(key) >= 3 * n and key == (key[:n] * len(key))[: len(key)] for n in (2, 3)):  # a bulbul is a bird
        return "the same letters repeated"
    if len(key) >= 6 and key.isascii() and key.isalpha() and _VOWELS.isdisjoint(key):
        return "no word"
    return None


def _looks_random(core: str) -> bool:
    kinds = any(c.islower() for c in core) + any(c.isupper() for c in core) + any(c.isdecimal() for c in core)
    return kinds == 3 and core.isascii() and len(_GROUPS_OF_DIGITS.findall(core)) >= 3


_NOT_WORDS = re.compile(r"[\W_]+")


def squeezed(text: str) -> str:
    """A text's letters and digits alone: what is compared with a file's name."""
    return _NOT_WORDS.sub("", text).casefold()


def is_file_name(text: str) -> bool:
    """Whether a text that has the letters of its file's name is the name itself, and not words that name the file.

    "vase_00" and "vase 00" of vase_00.jpg are; "red car" of red_car.jpg, "zero" of zero.png and "7" of 7.png are not.
    """
    return len(text) > 2 and any(character.isdecimal() or character == "_" for character in text)
