"""The web app: `python app.py` serves http://127.0.0.1:7860; a Hugging Face Space starts it the same way."""

from onellm.serve import main

if __name__ == "__main__":
    main()
