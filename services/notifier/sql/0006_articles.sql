-- Articles of our own folder, with their words as the language's dictionary has them. Written anew when the folder changes.

CREATE TABLE article (
    language    text   NOT NULL,
    article_id  text   NOT NULL,
    title       text   NOT NULL,
    url         text   NOT NULL,
    summary     text   NOT NULL,
    title_words text[] NOT NULL,
    text_words  text[] NOT NULL,
    PRIMARY KEY (language, article_id)
);
COMMENT ON COLUMN article.title_words IS 'lexemes of title and keywords';
COMMENT ON COLUMN article.text_words IS 'lexemes of the text';

CREATE INDEX article_by_word ON article USING gin ((title_words || text_words));

-- One row: which state of the folder the table above shows.
CREATE TABLE article_shelf (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    version  text    NOT NULL
);
